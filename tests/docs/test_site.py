"""The docs site has every page, and the pages' links lead somewhere."""

import re

import pytest

from tests.helpers.places import ROOT

PAGES = sorted((ROOT / "docs").rglob("*.md"))
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
READERS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]
QUESTIONS = {
    "What does a first picture cost me?": "nightjax predict --input=night.jpg",
    "Which command adapts to my folder?": "--config.data.streams.target.dataset=folder:",
    "How much memory does a step take?": "nightjax plan",
    "Can I use my 7 classes?": '"1": "drivable"',
    "Where is the IoU of the class pole?": "per-class IoU",
    "How do I ship it to a phone?": "`tflite`",
    "Which method should I take?": "| and unlabeled nights | [DACS]",
    "How do I go on after a crash?": "Rerun the same command to resume",
    "What has not been measured?": "## Status and limits",
    "How do I add a method?": "METHODS",
}
"""A new user's questions, and what the answer's page must hold."""


def anchors(text):
    """Anchors of the headings, as GitHub and mkdocs make them."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
    plain = (re.sub(r"[^\w\- ]", "", title.replace("`", "")).strip().lower() for title in titles)
    return {re.sub(r"[- ]+", "-", title) for title in plain}


def links(path):
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.S)
    return [link for link in LINK.findall(text) if "://" not in link and not link.startswith("mailto:")]


@pytest.mark.parametrize("path", READERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(path):
    for link in links(path):
        target, _, anchor = link.partition("#")
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), f"{link}: no such file"
        assert not anchor or anchor in anchors(file.read_text()), f"{link}: no such heading"


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text()
    assert not [page for page in PAGES if f": {page.relative_to(ROOT / 'docs')}\n" not in navigation]


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_is_answered_within_two_clicks_of_the_readme(question):
    seen, front = {ROOT / "README.md"}, [ROOT / "README.md"]
    for _ in range(2):
        found = [(page.parent / link.partition("#")[0]).resolve() for page in front for link in links(page)]
        front = [page for page in dict.fromkeys(found) if page.suffix == ".md" and page.exists() and page not in seen]
        seen |= set(front)
    assert any(QUESTIONS[question] in page.read_text() for page in seen)
