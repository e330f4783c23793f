# syntax=docker/dockerfile:1
# Images to train, and to serve an exported model:
#
#   docker build --target train -t project . && docker run --rm -it --shm-size 2g -v "$PWD/logs:/app/logs" project
#   docker build --target serve -t project-serve . && docker run --rm --read-only --tmpfs /tmp -p 8000:8000 \
#       -v "$PWD/logs/convnet/version_0/model.onnx:/model.onnx:ro" project-serve
#
FROM python:3.11-slim AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1
RUN useradd --create-home --uid 1000 app && mkdir -p /app/logs /app/data && chown -R app:app /app
WORKDIR /app
# The packages are a separate layer, which stays cached while only the code changes.
COPY pyproject.toml constraints.txt README.md ./

# Serving an ONNX file needs only the packages of the extra, without torch.
FROM base AS serve
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['serve'], sep='\n')" \
    > /tmp/serve.txt && pip install --constraint constraints.txt --requirement /tmp/serve.txt
COPY src src
ENV PYTHONPATH=/app/src
USER 1000
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["python", "-m", "project", "serve", "--host", "0.0.0.0"]
CMD ["/model.onnx"]

# The torch wheels bring their own CUDA libraries: add `--gpus all` on a machine with the NVIDIA container toolkit.
FROM base AS train
RUN mkdir -p src/project && touch src/project/__init__.py \
    && pip install --constraint constraints.txt --editable ".[export]"
COPY train.py ./
COPY configs configs
COPY src src
USER 1000
ENTRYPOINT ["python", "train.py"]
CMD ["fit", "--config", "configs/convnet.yaml"]
