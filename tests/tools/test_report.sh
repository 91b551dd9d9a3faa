#!/usr/bin/env bash
# test_report.sh SHARD-BENCH: results become a page; a browser shows it, at two widths, without an
# error of a script and with nothing cut off. Results that are none are refused by name.
. "$(dirname "$0")/lib.sh"
bench=$1
page=$work/page.html

run() { # NAME OPTION...
  local name=$1
  shift
  expect 0 "$bench" --store=mem: --size=64M --runtime=0.2 --output-format=json --output="$work/$name" "$@"
}
run one.json --iodepth=1 --cores=1 --shards=1 --lat-sample=1
run 'two <b>&.json' --iodepth=8 --rw=randwrite --lat-sample=1
run three.json --iodepth=8 --rate_iops=5000 --shards=2 --cores=2

expect 0 "$bench" report "$work/one.json" "$work/two <b>&.json" "$work/three.json" --output="$page"
cp "$page" "$work/out"
printed '<svg' 'Requests a second, over time' 'Latency by percentile' 'Throughput against latency' \
  'Processor time of an operation' 'two &lt;b&gt;&amp;.json: randwrite'
! grep -qE '<b>&|https?:|<script|<link|nan|inf' "$page" || complain "text is not escaped, or the page needs more than itself"
[ "$(grep -c '<figure>' "$page")" -ge 4 ] || complain "plots are missing"

# Each section of a job file is a result.
printf '[global]\nstore=mem:\nsize=64M\nruntime=100ms\n[deep]\niodepth=32\n[flat]\niodepth=1\n' > "$work/jobs.ini"
expect 0 "$bench" "$work/jobs.ini" --output-format=json --output="$work/both.json"
expect 0 "$bench" report "$work/both.json" --output="$work/both.html"
cp "$work/both.html" "$work/out"
printed 'both.json: deep' 'both.json: flat'
expect 1 "$bench" report "$work"/both.json "$work"/both.json "$work"/both.json "$work"/both.json \
  "$work/one.json" --output="$work/none.html"
said 'more than 8'

# fio's own, with bins and without.
if command -v fio > /dev/null; then
  truncate -s 1M "$work/data"
  for format in json json+; do
    expect 0 fio --name=f --filename="$work/data" --rw=randread --bs=4k --size=1M --output-format=$format \
      --output="$work/fio.json"
    expect 0 "$bench" report "$work/fio.json" --output="$work/fio.html"
    grep -q 'Latency by percentile' "$work/fio.html" || complain "nothing of fio's $format is shown"
  done
fi

# Two of them side by side.
run slow.json --runtime=0.6 --iodepth=1 --lat-sample=1
run fast.json --runtime=0.6 --iodepth=64 --batch=32 --lat-sample=64
expect 0 "$bench" compare "$work/slow.json" "$work/fast.json"
printed 'slow.json' 'fast.json' 'requests/s' '99.9 %' 'B / A' 'confidence'
expect 0 "$bench" compare "$work/one.json" "$work/both.json"
said '1 and 2 jobs'
expect 2 "$bench" compare "$work/one.json"
said 'two results'
expect 1 "$bench" compare "$work/one.json" /dev/null
said /dev/null

# What is no result is refused, and no page is made.
refused() { # WORDS CONTENT
  printf '%s' "$2" > "$work/bad.json"
  expect 1 "$bench" report "$work/one.json" "$work/bad.json" --output="$work/none.html"
  said bad.json "$1"
  [ ! -e "$work/none.html" ] || complain "a page was made of: $2"
}
refused 'line 2' $'{"jobs":\n!}'
refused 'no jobs/0' '{"jobs": 5}'
refused 'no jobs/0' '[]'
refused 'no requests' '{"jobs": [{"read": {"total_ios": 0}}]}'
refused '' ''
expect 0 "$bench" report <(echo '{"jobs": [{"read": {"total_ios": 5, "iops": "x", "clat_ns": [1]}, "series":
  {"interval_ms": 1, "iops": {"a": 1}, "p50_ns": [null, "y", -4]}}]}') --output="$work/odd.html"
expect 1 "$bench" report "$work/nowhere.json" --output="$work/none.html"
said nowhere.json
expect 1 "$bench" report "$work/one.json" --output=/nowhere/page.html
said /nowhere/page.html
expect 2 "$bench" report
said 'no result'
expect 2 "$bench" report "$work/one.json" --ouptut=x
said 'did you mean --output?'
expect 0 "$bench" report --help
printed RESULT

browser=$(command -v chromium || command -v chromium-browser || true)
if [ -z "$browser" ]; then
  echo "chromium is missing: nobody has looked at the page" >&2
  finish
fi
# A page around it measures it: how wide it becomes, and the least text of the plots.
for width in 1280 400; do
  cat > "$work/look.html" << END
<body style="margin:0"><pre id=result></pre><iframe id=f src=page.html style="width:${width}px;height:4000px;border:0"></iframe>
<script>
onerror = m => result.textContent += 'error ' + m + ' ';
f.onload = () => {
  const d = f.contentDocument, e = d.documentElement;
  const texts = [...d.querySelectorAll('svg text')].map(t => t.getBoundingClientRect());
  const least = Math.min(...texts.map(r => r.height)), right = Math.max(...texts.map(r => r.right));
  const lines = [...d.querySelectorAll('polyline')].filter(p => p.getBoundingClientRect().width > 50);
  result.textContent += 'wide=' + (e.scrollWidth > $width) + ' small=' + (least < 9) + ' cut=' +
    (right > $width) + ' plots=' + (d.querySelectorAll('svg').length >= 4) + ' lines=' + (lines.length >= 6);
};
</script>
END
  timeout 120 "$browser" --headless=new --no-sandbox --disable-gpu --allow-file-access-from-files \
    --user-data-dir="$work/browser" --virtual-time-budget=5000 --window-size=$width,1500 \
    --dump-dom "file://$work/look.html" > "$work/out" 2> "$work/err"
  printed 'wide=false small=false cut=false plots=true lines=true'
  timeout 120 "$browser" --headless=new --no-sandbox --disable-gpu --user-data-dir="$work/browser" \
    --hide-scrollbars --window-size=$width,1500 --screenshot="$work/shot.png" "file://$page" > /dev/null 2>&1
  # A white picture of this size has less than 10 KiB.
  [ "$(stat -c %s "$work/shot.png" 2> /dev/null || echo 0)" -gt 30000 ] || complain "an empty picture at $width"
done
finish
