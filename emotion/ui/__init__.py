"""The web page: one file per tab, shared pieces beside them. Needs the `demo` extra (gradio)."""

import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before gradio is imported: nothing is sent anywhere
