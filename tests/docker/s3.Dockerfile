# Stands in for the S3 server's image where none can be pulled: Ceph's gateway, from Debian.
ARG BASE_IMAGE=spira-base:local
FROM ${BASE_IMAGE}
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      radosgw ceph-mon ceph-osd ceph-common util-linux >/dev/null \
 && rm -rf /var/lib/apt/lists/* && mkdir /data && chown 10001:10001 /data
COPY tests/s3_server.sh tests/docker/s3_entry.py /usr/local/bin/
USER 10001:10001
CMD ["python", "/usr/local/bin/s3_entry.py", "/run/secrets/identities.json"]
