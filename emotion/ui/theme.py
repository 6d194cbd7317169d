"""How the page looks: system fonts, one accent, three text sizes, light and dark. The rest is in style.css."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

NOTICE = "Predictions of facial expression, not of feelings. Nothing you upload is kept."
KEPT_SECONDS = 900  # pictures and downloads of a session are deleted this long after they were made
PRIVACY = (
    f"Pictures stay in this server's temporary folder and memory for at most {KEPT_SECONDS // 30} minutes, "
    "are never logged, sent on or used for training. Labels are what people would call the expression; they say "
    "nothing certain about what somebody feels. Not for medical, hiring, policing or surveillance use."
)

ACCENT = gr.themes.Color(
    c50="#eff7fb", c100="#d9ecf4", c200="#b5d9e9", c300="#8dc8e0", c400="#6fbfe0", c500="#0f6b8f",
    c600="#0f6b8f", c700="#0c5876", c800="#0a465e", c900="#08364a", c950="#052533", name="accent",
)  # fmt: skip
FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "Liberation Mono", "monospace")


def theme() -> gr.themes.Base:
    """Gradio's base theme with quiet surfaces; every font is the system's, so nothing is fetched."""
    return gr.themes.Base(
        primary_hue=ACCENT,
        secondary_hue=ACCENT,
        neutral_hue=gr.themes.colors.zinc,
        radius_size=gr.themes.sizes.radius_sm,
        font=FONTS,
        font_mono=MONO,
    ).set(
        color_accent="#0f6b8f",
        color_accent_soft_dark="#16303b",
        input_background_fill="#ffffff",
        input_background_fill_dark="#191b1e",
        input_border_color="#c9cdd3",
        input_border_color_dark="#3c4046",
        input_border_width="1px",
        body_background_fill="#ffffff",
        body_background_fill_dark="#111214",
        body_text_color="#1b1d21",
        body_text_color_dark="#e7e9ec",
        body_text_color_subdued="#5a5f68",
        body_text_color_subdued_dark="#a3a8b0",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="#111214",
        background_fill_secondary="#f6f7f8",
        background_fill_secondary_dark="#191b1e",
        block_background_fill="#ffffff",
        block_background_fill_dark="#111214",
        block_border_color="#dfe2e6",
        block_border_color_dark="#303338",
        border_color_primary="#dfe2e6",
        border_color_primary_dark="#303338",
        block_label_text_color="#5a5f68",
        block_label_text_color_dark="#a3a8b0",
        block_shadow="none",
        button_secondary_background_fill="#ffffff",
        button_secondary_background_fill_dark="#191b1e",
        button_secondary_background_fill_hover="#f0f2f4",
        button_secondary_background_fill_hover_dark="#24272b",
        button_secondary_border_color="#c9cdd3",
        button_secondary_border_color_dark="#3c4046",
        button_secondary_text_color="#1b1d21",
        button_secondary_text_color_dark="#e7e9ec",
    )


CSS = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
