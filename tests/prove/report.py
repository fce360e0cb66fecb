"""The proof as a page that a stranger can read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.prove.phases import Done, Phase


def write(phases: Sequence[Phase], done: Mapping[str, Done], facts: Mapping[str, str], command: str) -> str:
    """Markdown: what was shown, by which figures, on which machine, and how to see it again."""
    holds = sum(each.holds for each in done.values())
    broken = [phase.title for phase in phases if phase.name in done and not done[phase.name].holds]
    missing = [phase.title for phase in phases if phase.name not in done]
    lines = ["# Proof", ""]
    if broken:
        lines.append(f"**{len(broken)} of {len(phases)} parts do not hold: {', '.join(broken)}.**")
    elif missing:
        lines.append(f"**{holds} of {len(phases)} parts hold; not run yet: {', '.join(missing)}.**")
    else:
        lines.append(f"**All {len(phases)} parts hold.**")
    lines += ["", "| | |", "|---|---|"]
    lines += [f"| {name} | {fact} |" for name, fact in facts.items()]
    lines += [f"| again | `{command}` |", ""]
    lines += ["| part | | seed | seconds |", "|---|---|---|---|"]
    for phase in phases:
        each = done.get(phase.name)
        state = "not run yet" if each is None else ("holds" if each.holds else "**does not hold**")
        seed, seconds = (f"{each.seed}", f"{each.seconds:.0f}") if each else ("", "")
        lines.append(f"| [{phase.title}](#{_anchor(phase.title)}) | {state} | {seed} | {seconds} |")
    for phase in phases:
        lines += ["", f"## {phase.title}", "", phase.promise, ""]
        lines += _part(phase, done[phase.name]) if phase.name in done else ["Not run yet."]
    return "\n".join(lines) + "\n"


def _part(phase: Phase, done: Done) -> list[str]:
    result = done.result
    lines = ["| what | how much |", "|---|---:|"]
    lines += [f"| {name} | {_number(value)} |" for name, value in result.figures.items()]
    again = f"make prove PROVE_ONLY={phase.name} PROVE_AGAIN={phase.name} PROVE_SEED={done.seed}"
    lines += ["", f"Seed {done.seed}, {done.seconds:.0f} s, {done.began}, commit {done.commit}; again: `{again}`."]
    lines += [f"\nNote: {note}" for note in result.notes]
    if result.problems:
        lines += ["", "**Does not hold:**", "", *(f"- {problem}" for problem in result.problems)]
    if result.details:
        lines += ["", "<details><summary>All counts</summary>", "", "```", result.details, "```", "", "</details>"]
    return lines


def _number(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _anchor(title: str) -> str:
    return "".join(letter for letter in title.lower() if letter.isalnum() or letter in " -").replace(" ", "-")
