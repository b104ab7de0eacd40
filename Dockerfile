# docker build -t rowtap .        docker run -p 6432:6432 -e ROWTAP_POSTGRES__HOST=… -e ROWTAP_REDIS__URL=… rowtap

FROM python:3.13-slim AS wheels
WORKDIR /src
COPY pyproject.toml README.md ./
COPY protocol protocol
COPY cache cache
COPY proxy proxy
# Wheels only: no stage needs a compiler, and the build fails here if a wheel is missing.
RUN pip wheel --no-cache-dir --wheel-dir /wheels --only-binary=:all: '.[tools]'

FROM python:3.13-slim
RUN --mount=type=bind,from=wheels,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --find-links=/wheels 'rowtap[tools]' \
    && useradd --system --uid 6432 --no-create-home --shell /usr/sbin/nologin rowtap
COPY config.toml /etc/rowtap/config.toml

# The shipped file listens on the loopback address, which cannot be reached from outside a container.
ENV ROWTAP_CONFIG=/etc/rowtap/config.toml \
    ROWTAP_PROXY__LISTEN=*:6432 \
    ROWTAP_ADMIN__LISTEN=*:9432 \
    PYTHONUNBUFFERED=1
USER 6432
WORKDIR /etc/rowtap
EXPOSE 6432 9432
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9432/healthz', timeout=2)"]
ENTRYPOINT ["rowtap"]
CMD ["serve"]
