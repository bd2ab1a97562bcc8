# Stands in for the images of Prometheus and Alertmanager where none can be pulled.
ARG BASE_IMAGE=spira-base:local
FROM ${BASE_IMAGE}
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      prometheus prometheus-alertmanager wget >/dev/null \
 && rm -rf /var/lib/apt/lists/* \
 && ln -s /usr/bin/prometheus-alertmanager /usr/local/bin/alertmanager \
 && mkdir /prometheus /alertmanager && chown 65534:65534 /prometheus /alertmanager
USER 65534:65534
