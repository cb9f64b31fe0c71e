"""The demo's prompt as text and as token ids. The text is what template.jinja renders (default settings, final newline kept)."""

ROLE = "You serve a gift shop."
LETTERS = "ABCDEFGHIJKLMNOPQRST"


def item_text(item, captions):
    return item["title"] + (" : " + item["caption"] if captions else "")


def head_text(captions, role=ROLE):
    form = ", each as {item : description}" if captions else ""
    return (
        "### Instruction:\n%s You see what a customer browsed, oldest first, and a candidate pool%s. "
        "Answer with the index letter of the item that comes next.\n\n### Input:\nPreviously browsed:\n" % (role, form)
    )


def prompt_text(history, candidates, captions):
    """history and candidates: items of a shop."""
    t = head_text(captions)
    for n, item in enumerate(history):
        t += "(%d) {%s}\n" % (n + 1, item_text(item, captions))
    t += "\nCandidate pool:\n"
    for n, item in enumerate(candidates):
        t += "(%s) {%s}\n" % (LETTERS[n], item_text(item, captions))
    return t + "\n### Response:\n"


class Encoder:
    """Token ids of prompts, piece by piece with a cache (the tokenizer's pattern cuts at the same places: `check` proves it)."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.cache = {}
        self.letters = [tokenizer.token_to_id(c) for c in LETTERS]

    def ids(self, text):
        r = self.cache.get(text)
        if r is None:
            r = self.cache[text] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return r

    def prompt(self, history, candidates, captions, head=True, first=0):
        """(ids with <s>, positions of the last token of every candidate). Letters start at number `first` (training of the base only)."""
        out = [1] + self.ids(head_text(captions) if head else "Previously browsed:\n")
        for n, item in enumerate(history):
            out = out + self.ids("(%d) {" % (n + 1)) + self.ids(item_text(item, captions)) + self.ids("}\n" if n + 1 < len(history) else "}\n\n")
        out = out + self.ids("Candidate pool:\n")
        ends = []
        for n, item in enumerate(candidates):
            out = out + self.ids("(%s) {" % LETTERS[first + n]) + self.ids(item_text(item, captions)) + self.ids("}\n" if n + 1 < len(candidates) else "}\n\n")
            ends.append(len(out) - 1)
        return out + self.ids("### Response:\n"), ends

    def check(self, history, candidates, captions):
        whole = self.tokenizer.encode(prompt_text(history, candidates, captions)).ids
        assert self.prompt(history, candidates, captions)[0] == whole
