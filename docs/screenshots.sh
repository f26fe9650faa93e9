#!/bin/bash
# Takes the pictures of the dashboard in docs/images: runs `longshore demo --stay`, opens it in Chromium and looks at it, in
# light and in dark, and at phone width. Needs Debian's chromium, chromium-driver, curl and jq.
#
# usage: docs/screenshots.sh [LONGSHORE]
#   LONGSHORE   the binary (default: target/release/longshore)
set -euo pipefail
cd "$(dirname "$0")/.."

binary=${1:-target/release/longshore}
for part in "$binary" chromedriver chromium curl jq; do
  command -v "$part" >/dev/null || { echo "docs/screenshots.sh: $part is missing" >&2; exit 1; }
done

work=$(mktemp -d)
session='' browser='' driver='' demo=''
tidy() {
  [ -z "$session" ] || curl -s -X DELETE "$session" >/dev/null || true
  for process in $browser $driver; do kill "$process" 2>/dev/null || true; done
  [ -z "$demo" ] || { kill -INT "$demo" 2>/dev/null || true; wait "$demo" 2>/dev/null || true; }
  rm -rf "$work"
}
trap tidy EXIT

# waits FOR-WHAT COMMAND…: until the command says something
waits() {
  local what=$1 said; shift
  for _ in $(seq 600); do
    said=$("$@" 2>/dev/null || true)
    if [ -n "$said" ] && [ "$said" != null ] && [ "$said" != false ]; then echo "$said"; return; fi
    sleep 0.2
  done
  echo "docs/screenshots.sh: $what does not come" >&2
  exit 1
}

"$binary" demo --peers 12 --size 64MiB --stay >"$work/demo.log" 2>"$work/demo.err" &
demo=$!
chromedriver --port=0 >"$work/driver.log" 2>&1 &
driver=$!
address=$(waits 'the dashboard' grep -o 'http://[^ ]*#token=.*' "$work/demo.log")
port=$(waits 'the driver' sed -n 's/.*started successfully on port \([0-9]*\).*/\1/p' "$work/driver.log")

made=$(jq -n --arg data "$work/browser" '{capabilities: {alwaysMatch: {browserName: "chrome", "goog:chromeOptions": {args: [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
  "--user-data-dir=\($data)"]}}}}' | curl -s "http://127.0.0.1:$port/session" -d @-)
session=http://127.0.0.1:$port/session/$(jq -r .value.sessionId <<<"$made")
browser=$(jq -r '.value.capabilities["goog:processID"] // empty' <<<"$made")

# say PATH JSON: one command to the browser; its answer
say() { curl -sf "$session/$1" -d "$2" | jq -c .value; }
run() { say execute/sync "$(jq -n --arg script "$1" '{script: $script, args: []}')"; }
devtools() { say goog/cdp/execute "{\"cmd\": \"$1\", \"params\": $2}"; }

# A swarm in the middle of its work.
busy='const headers = { Authorization: `Bearer ${sessionStorage.getItem("longshore-token")}` };
  return fetch("/api/v1/swarms", { headers }).then((answer) => answer.json()).then(({ swarms }) => swarms.find((swarm) =>
    swarm.length > 32 * 2 ** 20 && swarm.members === 12 && swarm.complete === 0 && swarm.seed === "whole")?.task)'
midway='return [...document.querySelectorAll("tbody .bar b")].filter((bar) => parseInt(bar.textContent) > 25).length > 5'

# look NAME PAGE SCHEME WIDTH HEIGHT
look() {
  local page=$2 task
  devtools Emulation.setDeviceMetricsOverride "{\"width\": $4, \"height\": $5, \"deviceScaleFactor\": 1, \"mobile\": false}" >/dev/null
  devtools Emulation.setEmulatedMedia "{\"features\": [{\"name\": \"prefers-color-scheme\", \"value\": \"$3\"}]}" >/dev/null
  if [ "$page" = swarm ]; then
    task=$(waits 'a busy swarm' run "$busy")
    page=swarms/${task//\"/}
  fi
  run "location.hash = '#/$page'" >/dev/null
  [ "$2" != swarm ] || waits 'the middle of the swarm' run "$midway" >/dev/null
  [ "$2" != swarm ] || run 'document.querySelectorAll("tbody button")[8].click()' >/dev/null
  # news, and the end of what moves
  sleep 3
  devtools Page.captureScreenshot '{"format": "png"}' | jq -r .data | base64 -d >"docs/images/$1.png"
  echo "docs/images/$1.png: $(stat -c %s "docs/images/$1.png") bytes"
}

mkdir -p docs/images
say url "$(jq -n --arg url "$address" '{url: $url}')" >/dev/null
# some rounds, so that the plots have something to show
sleep 75
for scheme in light dark; do
  look "dashboard-overview-$scheme" '' "$scheme" 1080 760
  look "dashboard-swarm-$scheme" swarm "$scheme" 1080 720
  look "dashboard-nodes-$scheme" nodes "$scheme" 1080 760
done
look dashboard-phone '' light 380 780
