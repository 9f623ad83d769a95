"""What content policies catch, by how it is written, and how often they are wrong: the tables of gateway/policy/README.md.

.venv/bin/python -m tests.bench.catch
"""

from tests.gateway.policy.corpus.measure import LANGUAGES, NAMES, SAMPLES, catch_rate, clean_lines, false_alarms
from tests.gateway.policy.corpus.obfuscations import OBFUSCATIONS


def main() -> None:
    print(f"Caught, percent of {SAMPLES} samples each; –: it is not written differently.\n")
    _row("", NAMES)
    _row("---", ["---:" for _ in NAMES])
    for obfuscation in OBFUSCATIONS:
        rates = [catch_rate(name, obfuscation) for name in NAMES]
        _row(obfuscation, ["–" if rate is None else f"{rate * 100:.0f}" for rate in rates])
    lines = {language: clean_lines(language) for language in LANGUAGES}
    told = " and ".join(f"{len(found)} {language}" for language, found in lines.items())
    print(f"\nFalse alarms per 1,000 clean lines ({told}).\n")
    _row("", NAMES)
    _row("---", ["---:" for _ in NAMES])
    for language, found in lines.items():
        _row(language, [f"{sum(1 for _ in false_alarms(name, language)) / len(found) * 1000:.1f}" for name in NAMES])


def _row(title: str, cells: "list[str] | tuple[str, ...]") -> None:
    print("|", " | ".join((title, *cells)), "|")


if __name__ == "__main__":
    main()
