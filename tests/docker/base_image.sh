#!/usr/bin/env bash
# Make spira-base:local, which stands in for python:3.11-slim-bookworm where no image can be pulled.
#
#   tests/docker/base_image.sh            Debian's minimal system, and this machine's Python 3.11 in
#                                         /usr/local; needs root, docker and mmdebstrap
#
# The same Dockerfiles build on it:  --build-arg BASE_IMAGE=spira-base:local
set -euo pipefail
image=${1:-spira-base:local}
if docker image inspect "$image" >/dev/null 2>&1; then exit 0; fi

python=$(python3.11 -c 'import sys; print(sys.base_prefix)')
scratch=$(mktemp -d); trap 'rm -rf "$scratch"' EXIT
sources=$(ls /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources 2>/dev/null | head -n 1 || true)
mirror=$(awk '/^URIs:/ {print $2; exit} /^deb / {print $2; exit}' "$sources")

mkdir -p "$scratch/usr/local/bin" "$scratch/usr/local/lib" "$scratch/etc/ssl/certs"
cp -a "$python/bin/python3.11" "$scratch/usr/local/bin/"
ln -s python3.11 "$scratch/usr/local/bin/python3"; ln -s python3 "$scratch/usr/local/bin/python"
cp -a "$python"/lib/libpython3.11.so* "$scratch/usr/local/lib/" 2>/dev/null || true  # when shared
tar -C "$python/lib" --exclude='site-packages/*' --exclude=__pycache__ --exclude='python3.11/test' \
  --exclude='python3.11/idlelib' --exclude='python3.11/tkinter' --exclude='config-*' -c python3.11 |
  tar -C "$scratch/usr/local/lib" -x
mkdir -p "$scratch/usr/local/lib/python3.11/site-packages"

mmdebstrap --quiet --variant=minbase \
  --include=ca-certificates,libbz2-1.0,libffi8,liblzma5,libncursesw6,libreadline8,libsqlite3-0,libssl3,zlib1g \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' \
  --customize-hook="tar -C '$scratch' -c usr | tar -C \"\$1\" -x --no-same-owner" \
  --customize-hook='cp /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/"' \
  --customize-hook='chroot "$1" ldconfig' \
  --customize-hook='chroot "$1" /usr/local/bin/python3 -m ensurepip --default-pip >/dev/null 2>&1' \
  --customize-hook='rm -rf "$1"/var/cache/apt/archives/*.deb "$1"/var/lib/apt/lists/*' \
  bookworm - "$mirror" |
  docker import --change 'CMD ["python3"]' \
    --change 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 PIP_CERT=/etc/ssl/certs/ca-certificates.crt' \
    - "$image" >/dev/null
