"""How the page looks: system fonts, one accent, three text sizes, light and dark."""

from __future__ import annotations

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


CSS = """
:root { --em-accent: #0f6b8f; --em-bad: #a3260f; --em-bad-fill: #fdf3f0; }
.dark { --color-accent: #6fbfe0; --em-accent: #6fbfe0; --em-bad: #ff9d85; --em-bad-fill: #2a1814; }
.gradio-container { width: 100%; max-width: 1232px !important; margin: 0 auto !important; font-size: 14px;
  padding: 20px 16px 32px !important; font-variant-numeric: tabular-nums; }
.gradio-container main { padding: 0 !important; }
.gradio-container, .gradio-container .prose { line-height: 1.45; }
.gradio-container :is(button, input, a, summary, [tabindex]):focus-visible,
.gradio-container label:has(input:focus-visible) { outline: 2px solid var(--em-accent) !important;
  outline-offset: 2px; }
.gradio-container footer { font-size: 14px; }

#em-header { align-items: end; gap: 24px; border: 0; }
#em-title h1 { font-size: 20px; font-weight: 650; margin: 0 0 2px; letter-spacing: -0.01em; }
#em-title p { margin: 0; color: var(--body-text-color-subdued); }
#em-header { flex-wrap: nowrap; }
#em-header > :first-child { flex: 1 1 auto; }
#em-header > :last-child { flex: 0 1 300px; min-width: 0 !important; border: 0; background: none; }
#em-model { border: 0; padding: 0; }
.em-no-model #em-model { visibility: hidden; }
.em-columns { gap: 32px; }
.gradio-container .html-container { padding: 0; }
.gradio-container footer :is(img, .divider) { display: none; }
.em-stage { position: sticky; top: 12px; align-self: flex-start; }
#em-hero img { cursor: pointer; }
#em-hero, #em-picture { background: var(--background-fill-secondary); }
.em-actions { gap: 8px; }
.em-actions > * { flex: 0 0 auto; min-width: 0; width: auto; padding: 6px 12px; font-size: 14px; font-weight: 500;
  background: var(--button-secondary-background-fill); }

.em-heading { font-size: 16px; font-weight: 600; margin: 0 0 8px; }
#em-details section { margin-top: 22px; }
.em-big { font-size: 20px; font-weight: 600; margin: 0 0 2px; }
.em-text { margin: 0 0 8px; color: var(--body-text-color-subdued); }
.em-note { padding: 14px 16px; border: 1px solid var(--border-color-primary); border-radius: 6px; }
.em-note p { margin: 0; } .em-note p + p, .em-note ul { margin-top: 6px; }
.em-note .em-text { margin: 4px 0 0; }
.em-error { border-color: var(--em-bad); background: var(--em-bad-fill); }
.em-error strong { color: var(--em-bad); }
.em-busy::before { content: ""; display: inline-block; width: 8px; height: 8px; margin-right: 10px; border-radius: 50%;
  background: var(--em-accent); animation: em-pulse 1.2s ease-in-out infinite; }
@keyframes em-pulse { 50% { opacity: 0.2; } }
@media (prefers-reduced-motion: reduce) { .em-busy::before { animation: none; } }

.em-swatch { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 7px; }
.em-rows { list-style: none; margin: 0; padding: 0; }
.em-rows li { display: grid; grid-template-columns: 92px 1fr 48px; align-items: center; gap: 10px; height: 24px;
  margin: 0; }
.em-units .em-rows li { grid-template-columns: 190px 1fr 48px; }
.em-label { white-space: nowrap; } .em-value { text-align: right; }
.em-bar { position: relative; display: block; height: 12px; border-radius: 2px;
  background: color-mix(in srgb, var(--body-text-color) 8%, transparent); }
.em-bar > i { position: absolute; display: block; }
.em-fill { left: 0; top: 0; bottom: 0; border-radius: 2px; } .em-muted { opacity: 0.5; }
.em-whisker { top: 5.5px; height: 1px; background: var(--body-text-color); }
.em-whisker::before, .em-whisker::after { content: ""; position: absolute; top: -3px; width: 1px; height: 7px;
  background: var(--body-text-color); }
.em-whisker::before { left: 0; } .em-whisker::after { right: 0; }
.em-tick { top: -2px; width: 1px; height: 16px; background: var(--body-text-color); }

.em-pair { display: grid; grid-template-columns: minmax(0, 236px) minmax(0, 1fr); gap: 8px 24px; }
.em-pair .em-rows li { grid-template-columns: 72px 1fr 34px; }
.em-circumplex { margin: 0; } .em-circumplex figcaption { color: var(--body-text-color-subdued); }
.em-circumplex svg { display: block; width: 100%; max-width: 240px; overflow: visible; }
.em-circumplex text { font-size: 16px; fill: var(--body-text-color-subdued); text-anchor: middle; }
.em-circumplex .em-end { text-anchor: end; } .em-circumplex .em-start { text-anchor: start; }
.em-grid { fill: none; stroke: var(--border-color-primary); }
.em-axis { stroke: var(--border-color-primary); }
.em-point { fill: var(--em-accent); stroke: var(--body-background-fill); stroke-width: 1.5; }
.em-spread { fill: var(--em-accent); fill-opacity: 0.2; stroke: var(--em-accent); stroke-opacity: 0.6; }

.em-table { width: 100%; border-collapse: collapse; margin: 4px 0 0; }
.em-table :is(th, td) { padding: 4px 8px 4px 0; text-align: left; font-weight: 400; border: 0;
  border-bottom: 1px solid var(--border-color-primary); }
.em-table thead th { color: var(--body-text-color-subdued); }
.em-table tfoot :is(th, td) { font-weight: 600; border-bottom: 0; }
.em-table .em-number, .em-table th:nth-child(n + 3) { text-align: right; padding-right: 0; }
.em-details summary { cursor: pointer; font-size: 16px; font-weight: 600; margin: 20px 0 8px; }

.em-cam { --em-alpha: 0.55; }
.em-cam figure { margin: 0; } .em-cam figcaption { color: var(--body-text-color-subdued); padding-top: 2px; }
.em-cam-main, .em-cam-branches { display: grid; gap: 10px; }
.em-cam-main { grid-template-columns: repeat(3, minmax(0, 1fr)); }
.em-cam-branches { grid-template-columns: repeat(auto-fill, minmax(88px, 1fr)); margin-top: 12px; }
.em-layers { position: relative; aspect-ratio: 1; border-radius: 4px; overflow: hidden; }
.em-layers img { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; max-width: none; }
.em-layers .em-map { opacity: var(--em-alpha); }
.em-controls { display: flex; flex-wrap: wrap; align-items: center; gap: 8px 16px; margin: 10px 0 0; }
.em-controls label { display: flex; align-items: center; gap: 10px; }
.em-controls input { accent-color: var(--em-accent); width: 130px; }
.em-scale { display: flex; align-items: center; gap: 6px; color: var(--body-text-color-subdued); }
.em-scale i { width: 96px; height: 10px; border-radius: 2px; }

.em-examples { display: grid; grid-template-columns: repeat(5, minmax(0, 1fr)); gap: 12px;
  align-items: start; }
.em-examples button { padding: 0; font-size: 14px; font-weight: 400; text-align: left; cursor: pointer; border: 0;
  background: none; color: var(--body-text-color); border-radius: 6px; }
.em-examples img { display: block; width: 100%; height: 84px; object-fit: cover; border-radius: 6px; margin: 0 0 4px;
  border: 1px solid var(--border-color-primary); }
.em-examples button:hover img { border-color: var(--em-accent); }
.em-examples small { display: block; font-size: 14px; color: var(--body-text-color-subdued); }

.em-readout .form, #em-faces { border: 0; padding: 0; background: none; }
#em-faces .wrap { gap: 6px; max-height: 148px; overflow-y: auto; padding: 3px; }
#em-faces label { padding: 3px 10px; font-size: 14px; box-shadow: none; }
#em-faces label span { margin: 0; } #em-faces input { position: absolute; opacity: 0; pointer-events: none; }
#em-faces label.selected { background: var(--em-accent); border-color: var(--em-accent); color: #ffffff; }
.dark #em-faces label.selected { color: #0b1114; }

.em-cards + .em-heading { margin-top: 28px; }
.em-cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 360px), 1fr)); gap: 16px; }
.em-card { border: 1px solid var(--border-color-primary); border-radius: 6px; padding: 16px; }
.em-card h3 { font-size: 16px; font-weight: 600; margin: 0; overflow-wrap: anywhere; }
.em-card dl { display: grid; grid-template-columns: 96px 1fr; gap: 5px 12px; margin: 12px 0; }
.em-card dt { color: var(--body-text-color-subdued); } .em-card dd { margin: 0; overflow-wrap: anywhere; }
.em-card code { font-size: 14px; padding: 0; border: 0; background: none; overflow-wrap: anywhere;
  white-space: normal; }
.em-card a { color: var(--em-accent); text-decoration: underline; }
.em-button { border: 1px solid var(--button-secondary-border-color); border-radius: 4px; padding: 4px 12px;
  background: var(--button-secondary-background-fill); color: var(--body-text-color); cursor: pointer; }
.em-footer { color: var(--body-text-color-subdued); max-width: 76ch; margin-top: 24px; }

@media (max-width: 760px) {
  .em-columns { flex-direction: column; flex-wrap: nowrap; }
  .em-stage { display: contents; }
  .em-gallery { order: 1; }
  .em-examples { grid-template-columns: repeat(3, minmax(0, 1fr)); }
  #em-picture { height: 300px !important; }
  #em-header { flex-direction: column; align-items: stretch; gap: 10px; }
  #em-header > :last-child { flex: none; }
  .em-columns { gap: 20px; }
  .em-pair { grid-template-columns: 1fr; }
}
"""
