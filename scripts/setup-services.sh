#!/usr/bin/env bash
# Installs the real servers that the tests, the demo and the benchmarks start; safe to run twice.
# Usage: setup-services.sh [rtsp] [kafka] [prometheus] [ffmpeg] [kustomize] [browser]      (none: all of them)
#   rtsp        GStreamer's RTSP server with its Python bindings, from Debian
#   kafka       Java 17 or newer and Maven from Debian, Kafka's jars by Maven into .cache/kafka/lib
#   prometheus  Prometheus with promtool, from Debian
#   ffmpeg      the programs ffmpeg and ffprobe: peers in benchmarks
#   kustomize   kustomize 5 (what is there, or kubectl's own, or built by Go, which Debian has), and as Go modules the
#               schemas that manifests and compose.yaml are checked against, both into .cache/kustomize
#   browser     Chromium, which Playwright drives, and a font, from Debian
set -euo pipefail
cd "$(dirname "$0")/.."

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

updated=no
install_packages() {  # only what dpkg does not have, without starting services
    local missing=()
    for package in "$@"; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if ! command -v apt-get >/dev/null; then
        echo "This machine has no apt-get; please install: ${missing[*]}" >&2
        exit 2
    fi
    if [ "$updated" = no ]; then
        as_root apt-get update -qq
        updated=yes
    fi
    echo "Installing ${missing[*]}"
    as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

java_major() { java -version 2>&1 | sed -nE '1s/.*"(1\.)?([0-9]+).*/\2/p'; }

setup_rtsp() {
    install_packages gir1.2-gst-rtsp-server-1.0 gir1.2-gst-plugins-base-1.0 python3-gi glib-networking openssl \
        gstreamer1.0-plugins-base gstreamer1.0-plugins-good
}

setup_kafka() {
    command -v java >/dev/null || install_packages default-jre-headless
    if [ "$(java_major)" -lt 17 ]; then
        echo "Kafka needs Java 17 or newer; 'java' is $(java_major)" >&2
        exit 2
    fi
    command -v mvn >/dev/null || install_packages maven
    install_packages openssl
    fetch_kafka
}

fetch_kafka() {  # again only when the pom has changed
    local pom=tests/services/kafka/pom.xml target=.cache/kafka
    if [ -d "$target/lib" ] && cmp -s "$pom" "$target/pom.xml"; then
        return 0
    fi
    echo "Fetching Kafka's jars by Maven"
    rm -rf "$target"
    mkdir -p "$target"
    mvn -q -B -Dstyle.color=never -f "$pom" dependency:copy-dependencies -DoutputDirectory="$PWD/$target/lib"
    cp "$pom" "$target/pom.xml"  # last: an interrupted fetch is begun again
}

setup_prometheus() {
    command -v prometheus >/dev/null && return 0
    install_packages prometheus
    if command -v systemctl >/dev/null && [ -d /run/systemd/system ]; then
        as_root systemctl disable --now prometheus >/dev/null 2>&1 || true  # the tests start their own
    fi
}

setup_ffmpeg() {
    command -v ffmpeg >/dev/null && command -v ffprobe >/dev/null || install_packages ffmpeg
}

setup_browser() {
    command -v chromium >/dev/null || install_packages chromium fonts-dejavu-core
}

KUSTOMIZE=v5.0.3  # the newest that Debian's Go builds
OPERATOR=github.com/prometheus-operator/prometheus-operator@v0.85.0
COMPOSE=github.com/compose-spec/compose-go/v2@v2.4.9

has_kustomize() {  # of version 5, as the tests look for it
    [ -x .cache/kustomize/kustomize ] || kustomize version 2>/dev/null | grep -q 'v5\.' ||
        kubectl version --client 2>/dev/null | grep -q 'Kustomize Version: v5\.'
}

setup_kustomize() {
    local target=.cache/kustomize
    [ -f "$target/compose-spec.json" ] && has_kustomize && return 0
    command -v go >/dev/null || install_packages golang-go ca-certificates
    mkdir -p "$target"
    target=$PWD/$target
    local modules
    modules=$(mktemp -d)
    export GOMODCACHE=$modules/cache GOFLAGS="${GOFLAGS:-} -modcacherw"
    if ! has_kustomize; then
        echo "Building kustomize by Go; this takes a minute or two"
        (cd "$modules" && CGO_ENABLED=0 GOBIN=$target go install "sigs.k8s.io/kustomize/kustomize/v5@$KUSTOMIZE")
    fi
    echo "Fetching the schemas of the Prometheus operator and of Compose as Go modules"
    (cd "$modules" && go mod download "$OPERATOR" "$COMPOSE")
    cp -f "$modules/cache/${OPERATOR}"/example/prometheus-operator-crd/monitoring.coreos.com_{podmonitors,prometheusrules}.yaml \
        "$target/"
    cp -f "$modules/cache/${COMPOSE}/schema/compose-spec.json" "$target/"  # last: an interrupted fetch is begun again
    rm -rf "$modules"
}

[ $# -gt 0 ] || set -- rtsp kafka prometheus ffmpeg kustomize browser
for part in "$@"; do
    case $part in
        rtsp | kafka | prometheus | ffmpeg | kustomize | browser) "setup_$part" ;;
        *) echo "unknown part '$part'; known: rtsp kafka prometheus ffmpeg kustomize browser" >&2; exit 2 ;;
    esac
done
