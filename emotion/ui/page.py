"""The whole page: header, tabs, and how it is served."""

from __future__ import annotations

import importlib.util
from typing import Any

import gradio as gr

from emotion.errors import UserError
from emotion.ui import image, models, theme
from emotion.ui.pieces import Models

TABS = {"image": "Image", "models": "Models"}
MAX_UPLOAD = "64mb"
# Writes a choice into the address, once the address has been read: the first tab reports itself before that.
READY = "() => { window.emReady = true; }"
IN_URL = (
    "(v) => {{ if (!window.emReady) return; const u = new URL(location);"
    "u.searchParams.set('{0}', {1}); history.replaceState(null, '', u); }}"
)


def build(offered: Models) -> gr.Blocks:
    """Compose the page around the models it offers."""
    with gr.Blocks(
        title="emotion", analytics_enabled=False, delete_cache=(theme.KEPT_SECONDS, theme.KEPT_SECONDS)
    ) as page:
        with gr.Row(elem_id="em-header"):
            gr.HTML(f"<h1>emotion</h1><p>{theme.NOTICE}</p>", elem_id="em-title")
            model = gr.Dropdown(offered.names, value=offered.names[0], label="Model", elem_id="em-model")
        with gr.Tabs(elem_id="em-tabs") as tabs:
            with gr.Tab(TABS["image"], id="image") as first:
                image.ImageTab(offered, model)
            with gr.Tab(TABS["models"], id="models") as second:
                models.tab(offered)
        gr.HTML(f'<p class="em-footer">{theme.PRIVACY}</p>')
        image.endpoint(offered)
        for name, tab in zip(TABS, (first, second)):
            tab.select(None, js=IN_URL.format("tab", f"'{name}'"))
        model.change(None, model, js=IN_URL.format("model", "v"))

        def from_url(request: gr.Request) -> tuple[Any, Any]:
            """Open the tab and model that the address names, where they exist."""
            wanted = request.query_params
            tab, name = wanted.get("tab"), wanted.get("model")
            return (
                gr.Tabs(selected=tab) if tab in TABS else gr.skip(),
                gr.Dropdown(value=name) if name in offered.names else gr.skip(),
            )

        opened = page.load(from_url, None, [tabs, model], queue=False, show_progress="hidden", api_visibility="private")
        opened.then(None, js=READY)
    return page


def launch(
    offered: Models, host: str = "127.0.0.1", port: int | None = None, mcp: bool = False
) -> tuple[gr.Blocks, str]:
    """Serve the page in the background; nothing leaves the machine.

    Args:
        offered: the models to choose from.
        host, port: where to listen; without a port the first free one from 7860 on.
        mcp: also offer the functions to language models over MCP.

    Returns:
        The page (`block_thread` waits, `close` ends it) and its address.

    Raises:
        UserError: MCP without its library. OSError: the port is taken.
    """
    if mcp and importlib.util.find_spec("mcp") is None:
        raise UserError("--mcp needs one more library; install it with: pip install 'gradio[mcp]'")
    page = build(offered)
    page.queue(max_size=32, default_concurrency_limit=1)
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        theme=theme.theme(),
        css=theme.CSS,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        allowed_paths=[str(image.EXAMPLES)],
        run_history=False,
        show_error=True,
        max_file_size=MAX_UPLOAD,
        footer_links=["api"],
        state_session_capacity=100,
        enable_monitoring=False,
        mcp_server=mcp,
    )
    return page, address
