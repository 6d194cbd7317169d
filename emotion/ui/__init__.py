"""The web page: one file per tab, shared pieces beside them. Needs the `demo` extra (gradio)."""
