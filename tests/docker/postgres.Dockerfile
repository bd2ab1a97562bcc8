# Stands in for the postgres image where none can be pulled: Debian's Postgres, the same variables.
ARG BASE_IMAGE=spira-base:local
FROM ${BASE_IMAGE}
RUN groupadd -g 999 postgres && useradd -u 999 -g 999 -d /var/lib/postgresql postgres \
 && apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql >/dev/null \
 && rm -rf /var/lib/apt/lists/* \
 && mkdir -p /var/lib/postgresql/data && chown 999:999 /var/lib/postgresql/data \
 && chmod 0700 /var/lib/postgresql/data
COPY tests/docker/postgres_entry.sh /usr/local/bin/
ENV PATH=/usr/lib/postgresql/15/bin:/usr/local/bin:/usr/bin:/bin PGDATA=/var/lib/postgresql/data
USER 999:999
STOPSIGNAL SIGINT
ENTRYPOINT ["postgres_entry.sh"]
CMD ["postgres"]
