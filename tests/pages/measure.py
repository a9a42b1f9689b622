"""Measures report pages in a browser: text in charts of at least 10 pixels, nothing cut, nothing overlapping.

    python3 tests/pages/measure.py PAGE.html...     (needs chromium on the PATH)

Each page is shown 1500, 800 and 390 pixels wide, light and dark. A line of JSON for each; the exit code is 1 if a
text in a chart is smaller than 10 pixels, lies outside of its chart or over another text, or if the page is wider
than the window.
"""
import html
import json
import subprocess
import sys
import tempfile
from pathlib import Path

SCRIPT = """<script>addEventListener('load', () => setTimeout(() => {
  const width = document.documentElement.clientWidth, small = [], cut = [], over = [];
  let texts = 0, least = 1000;
  for (const svg of document.querySelectorAll('svg')) {
    const box = svg.getBoundingClientRect();
    if (!box.width) continue;
    const scale = box.width / svg.viewBox.baseVal.width, seen = [];
    for (const text of svg.querySelectorAll('text')) {
      const at = text.getBoundingClientRect(), size = scale * parseFloat(text.getAttribute('font-size'));
      texts += 1; least = Math.min(least, size);
      const name = text.textContent.trim();
      if (size < 10) small.push(name);
      if (at.left < box.left - 1 || at.right > box.right + 1 || at.top < box.top - 1 || at.bottom > box.bottom + 1
          || at.right > width + 1) cut.push(name);
      for (const [other, where] of seen)
        if (at.left < where.right - 1 && where.left < at.right - 1 && at.top + 3 < where.bottom - 3
            && where.top + 3 < at.bottom - 3) over.push(name + ' / ' + other);
      seen.push([name, at]);
    }
  }
  const page = document.documentElement.scrollWidth;
  document.title = JSON.stringify({texts, least: +least.toFixed(2), small, cut, over, page});
}, 300));</script>"""


def measured(page, width, dark):
    text = page.read_text()
    if dark:
        text = text.replace("@media (prefers-color-scheme: dark)", "@media all").replace("light dark", "dark")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "page.html").write_text(text.replace("</body>", SCRIPT + "</body>"))
        # Headless windows are never as narrow as a phone: a frame is.
        (folder / "frame.html").write_text(
            f"<!DOCTYPE html><body style='margin:0'><iframe src='page.html' style='border:0;width:{width}px;height:4000px'>"
            "</iframe><pre></pre><script>setTimeout(() => document.querySelector('pre').textContent ="
            " document.querySelector('iframe').contentDocument.title, 3000)</script>"
        )
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"]
        command += ["--allow-file-access-from-files", f"--user-data-dir={folder}/profile", "--virtual-time-budget=20000"]
        command += [f"--window-size={max(width, 500)},4000", "--dump-dom", f"file://{folder}/frame.html"]
        dom = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    return json.loads(html.unescape(dom.split("<pre>")[1].split("</pre>")[0]))


def main():
    failed = False
    for page in map(Path, sys.argv[1:]):
        for width in (1500, 800, 390):
            for dark in (False, True):
                found = measured(page, width, dark)
                bad = bool(found["small"] or found["cut"] or found["over"] or found["page"] > width or not found["texts"])
                failed |= bad
                print(json.dumps({"file": page.name, "width": width, "dark": dark, "ok": not bad, **found}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
