"""The whole page: header, tabs, and how it is served."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import gradio as gr

from emotion.errors import UserError
from emotion.ui import compare, image, leaderboard, models, scene, theme, video, voice, webcam
from emotion.ui.pieces import EXAMPLES, Models


class Tab(NamedTuple):
    """One tab: its name in the address, its title, and what builds its contents.

    `build` is given the page's models and the header's chooser of face models. It returns the tab's own chooser of
    models, where it has one. The header's chooser is shown on those tabs that follow it (`face`).
    """

    id: str
    title: str
    build: Callable[[Models, gr.Dropdown], gr.Dropdown | None]
    face: bool = False


TABS = (
    Tab("image", "Image", image.tab, face=True),
    Tab("video", "Video", video.tab, face=True),
    Tab("webcam", "Webcam", webcam.tab, face=True),
    Tab("scene", "Scene", scene.tab),
    Tab("voice", "Voice & face", voice.tab),
    Tab("compare", "Compare", compare.tab),
    Tab("leaderboard", "Leaderboard", leaderboard.tab),
    Tab("models", "Models", models.tab),
)
MAX_UPLOAD = "200mb"
# Tab and model are written into the address, once it has been read: the first tab reports itself before that.
READY = """() => {
    window.emReady = true;
    // A picture in the clipboard: Gradio has a button for it, which only works over https and on this machine itself.
    document.addEventListener('paste', event => {
        const picture = [...event.clipboardData.files].find(file => file.type.startsWith('image/'));
        const inputs = document.querySelectorAll('input[type=file][accept^=image]');
        const input = [...inputs].find(input => input.parentElement.checkVisibility());
        if (!picture || !input) return;
        const files = new DataTransfer();
        files.items.add(picture);
        input.files = files.files;
        input.dispatchEvent(new Event('change', { bubbles: true }));
    });
}"""
IN_URL = """(model) => {{
    const tab = '{tab}' || new URL(location).searchParams.get('tab');
    if ('{tab}') document.getElementById('em-header').classList.toggle('em-no-model', !{face});
    if (!window.emReady) return;
    const u = new URL(location);
    if (tab) u.searchParams.set('tab', tab);
    if (model) u.searchParams.set('model', model); else u.searchParams.delete('model');
    history.replaceState(null, '', u);
}}"""


def build(offered: Models) -> gr.Blocks:
    """Compose the page around the models it offers."""
    with gr.Blocks(
        title="emotion", analytics_enabled=False, delete_cache=(theme.KEPT_SECONDS, theme.KEPT_SECONDS)
    ) as page:
        with gr.Row(elem_id="em-header"):
            gr.HTML(f"<h1>emotion</h1><p>{theme.NOTICE}</p>", elem_id="em-title")
            model = gr.Dropdown(offered.names(), value=offered.names()[0], label="Model", elem_id="em-model")
        choosers = [model]
        with gr.Tabs(elem_id="em-tabs") as tabs:
            for tab in TABS:
                with gr.Tab(tab.title, id=tab.id) as opened:
                    own = tab.build(offered, model)
                chooser = model if tab.face else own
                opened.select(None, chooser, js=IN_URL.format(tab=tab.id, face="true" if tab.face else "false"))
                choosers += [own] if own else []
        gr.HTML(f'<p class="em-footer">{theme.PRIVACY}</p>')
        for chooser in choosers:
            chooser.input(None, chooser, js=IN_URL.format(tab="", face="false"))
        _follow_address(page, tabs, choosers)
    return page


def _follow_address(page: gr.Blocks, tabs: gr.Tabs, choosers: list[gr.Dropdown]) -> None:
    """Open the tab and model that the address names, where they exist."""

    def from_url(request: gr.Request) -> list[Any]:
        tab, name = request.query_params.get("tab"), request.query_params.get("model")
        names = [[value for _, value in chooser.choices] for chooser in choosers]
        return [
            gr.Tabs(selected=tab) if tab in [t.id for t in TABS] else gr.skip(),
            *(gr.Dropdown(value=name) if name in known else gr.skip() for known in names),
        ]

    read = page.load(from_url, None, [tabs, *choosers], queue=False, show_progress="hidden", api_visibility="private")
    read.then(None, js=READY)


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
        raise UserError("--mcp needs one more library; install it with: pip install 'mcp>=1.21,<2'")
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
        allowed_paths=[str(EXAMPLES)],
        run_history=False,
        show_error=True,
        max_file_size=MAX_UPLOAD,
        footer_links=["api"],
        state_session_capacity=100,
        enable_monitoring=False,
        mcp_server=mcp,
    )
    return page, address
