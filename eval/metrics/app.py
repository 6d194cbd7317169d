"""The Hub Space of the metric beside this file: paste examples as JSON, read the figures."""

from __future__ import annotations

import json
from pathlib import Path

import evaluate
import gradio as gr

HERE = Path(__file__).parent
SCRIPT = next(p for p in sorted(HERE.glob("*.py")) if (HERE / f"{p.stem}_core.py").is_file())
EXAMPLE = json.loads((HERE / "example.json").read_text(encoding="utf-8"))
METRIC = evaluate.load(str(SCRIPT), EXAMPLE["config"])


def compute(columns: str) -> str:
    """Figures of `columns`, a JSON object of predictions, references and options; both as text."""
    try:
        figures = METRIC.compute(**json.loads(columns))
    except (ValueError, TypeError, KeyError) as error:
        raise gr.Error(f"cannot compute this: {error}", print_exception=False) from error
    return json.dumps(figures, indent=1)


demo = gr.Interface(
    compute,
    gr.Code(json.dumps(EXAMPLE["inputs"], indent=1), language="json", label="Predictions and references"),
    gr.Code(language="json", label="Figures"),
    title=SCRIPT.stem,
    description=f"{METRIC.description}\n\n```\n{METRIC.inputs_description.strip()}\n```",
)

if __name__ == "__main__":
    demo.launch(run_history=False)
