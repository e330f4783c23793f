# The first run in a container, on a processor:
#
#   docker build -t project . && docker run --rm -it --shm-size 2g -v "$PWD/logs:/app/logs" project
#
# The torch wheels bring their own CUDA libraries: add `--gpus all` on a machine with the NVIDIA container toolkit.
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1
RUN useradd --create-home --uid 1000 app && mkdir -p /app/logs /app/data && chown -R app:app /app
WORKDIR /app

# The packages change seldom: they are a layer of their own, kept while only the code changes.
COPY pyproject.toml constraints.txt README.md ./
RUN mkdir -p src/project && touch src/project/__init__.py \
    && pip install --constraint constraints.txt --editable .

COPY train.py ./
COPY configs configs
COPY src src

USER 1000
ENTRYPOINT ["python", "train.py"]
CMD ["fit", "--config", "configs/convnet.yaml"]
