# The monitor on processors; `--target camera` makes the simulated cameras beside it. No torch in either.
#   docker build -t video-event-monitor:0.1.0 .
#   docker build -t video-event-monitor-camera:0.1.0 --target camera .
# With an extra, for evidence in a bucket: --build-arg EXTRAS=[s3]
ARG PYTHON=python:3.11.13-slim-bookworm

FROM ${PYTHON} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE CHANGELOG.md config.toml ./
COPY monitor monitor
COPY models models
ARG EXTRAS=
RUN python -m pip wheel --no-deps --wheel-dir /wheels .
RUN python -m venv --without-pip /opt/monitor \
    && python -m pip --python /opt/monitor/bin/python install --constraint constraints.txt "$(echo /wheels/*.whl)$EXTRAS"

FROM build AS scenes
COPY demo demo
COPY tests tests
RUN /opt/monitor/bin/python -m demo.streams /scenes

FROM debian:bookworm-20250908-slim AS camera
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        gir1.2-gst-rtsp-server-1.0 gir1.2-gst-plugins-base-1.0 python3-gi glib-networking \
        gstreamer1.0-plugins-base gstreamer1.0-plugins-good \
    && rm -rf /var/lib/apt/lists/*
COPY --from=scenes /scenes /scenes
COPY demo/camera.py /srv/demo/camera.py
COPY tests/services/rtsp/server.py /srv/tests/services/rtsp/server.py
ENV PYTHONDONTWRITEBYTECODE=1 HOME=/tmp GST_REGISTRY=/tmp/gst-registry.bin
USER 10001:10001
EXPOSE 8554
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python3", "-c", "import socket; socket.create_connection(('127.0.0.1', 8554), 2).close()"]
ENTRYPOINT ["python3", "/srv/demo/camera.py", "/scenes"]

FROM ${PYTHON} AS monitor
COPY --from=build /opt/monitor /opt/monitor
RUN install -d -o 10001 -g 10001 /var/lib/monitor && install -d /etc/monitor
ENV PATH=/opt/monitor/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp MPLCONFIGDIR=/tmp \
    MONITOR_CONFIG=/etc/monitor/config.toml
WORKDIR /var/lib/monitor
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/live', timeout=3)"]
ENTRYPOINT ["monitor"]
CMD ["run"]
