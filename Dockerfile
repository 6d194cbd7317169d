# The page as a container:  docker build -t emotion .  &&  docker run --read-only --tmpfs /tmp -p 7860:7860 emotion
# With CUDA:  docker build --build-arg TORCH=cu130 -t emotion:cuda .  &&  docker run --gpus all ...
# Checkpoints of your own: -v "$PWD/my-model:/models/mine:ro" emotion --model /models/mine
# Linted by hadolint; `python -m tests.container` runs these steps and the result where there is no container engine.
ARG PYTHON=3.11
FROM python:${PYTHON}-slim

# Which build of PyTorch: cpu, or a CUDA version as PyTorch names it; or another index that has one.
ARG TORCH=cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/${TORCH}

ENV PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# Everything that is written at run time goes below /tmp, so that the rest can be read-only.
ENV HOME=/tmp/home HF_HOME=/tmp/huggingface GRADIO_TEMP_DIR=/tmp/gradio MPLCONFIGDIR=/tmp/matplotlib

WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY emotion emotion
COPY eval eval
COPY train train
RUN pip install --index-url "${TORCH_INDEX}" "torch>=2.14,<3" "torchvision>=0.29,<1"
# hadolint ignore=DL3013
RUN pip install ".[demo]" && rm -rf build emotion eval train
COPY app.py ./

RUN useradd --uid 1000 --no-create-home --home-dir /tmp/home --shell /usr/sbin/nologin emotion
USER 1000
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=10s --start-period=120s \
  CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:7860/', timeout=8)"]
ENTRYPOINT ["python", "app.py", "--host", "0.0.0.0", "--port", "7860"]
