"""Take the picture of a finished demo out of its report, as a file that stands alone.

python scripts/make_demo_picture.py trimtab-demo/report.html [docs/demo.svg]
"""

import re
import sys
from pathlib import Path

TARGET = Path(__file__).parents[1] / "docs" / "demo.svg"
PAGE_ONLY = re.compile(r"^(body|h1|p|\.tile|\.tiles|\.scroll|table|th|footer)\b")


def picture(report: str) -> str:
    """The picture within the text of a report, with the styles that it needs."""
    style = re.search(r"<style>(.*?)</style>", report, re.DOTALL)
    drawn = re.search(r"<svg\b.*?</svg>", report, re.DOTALL)
    if style is None or drawn is None:
        raise SystemExit("This is not a report of the demo: it has no picture.")
    rules = [rule for rule in style[1].strip().splitlines() if not PAGE_ONLY.match(rule)]
    rules.append(".chart { background: var(--paper); }")
    own = f"\n<style>\n{chr(10).join(rules)}\n</style>"
    return (
        re.sub(r"<svg\b([^>]*)>", rf'<svg xmlns="http://www.w3.org/2000/svg"\1>{own}', drawn[0], count=1)
        + "\n"
    )


def main() -> None:
    """Write the picture of the report that the command line names."""
    if len(sys.argv) not in (2, 3):
        raise SystemExit(__doc__)
    target = Path(sys.argv[2]) if len(sys.argv) == 3 else TARGET
    target.write_text(picture(Path(sys.argv[1]).read_text()))
    print(f"{target}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
