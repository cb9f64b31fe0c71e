"""A made-up gift shop: users, items and interactions from one seed.

Pure integer arithmetic on one splitmix64 stream, so that any language can reproduce a shop bit by bit.

The shop sells `len(CATEGORIES) x motifs` items: every category once with every motif of this shop. The title of an item
names its category and a model name that says nothing ("Tavi mug"). What the item shows, its motif, stands only in the
caption ("a red mug with a fox"); the colour there is noise.

A user walks through the ring of categories and loves one motif, the taste. The category of the next purchase mostly
follows from the last one, which a retriever learns from interactions alone; the motif is the user's taste with
probability `taste_percent`, else any. There are few interactions an item, so which items share a motif is hard to learn
from interactions, and easy to read from the captions.
"""
import json
import os

HERE = os.path.dirname(os.path.abspath(__file__))
WORDS = json.load(open(os.path.join(HERE, "../../cli/src/demo/words.json"), encoding="utf-8"))
MASK = (1 << 64) - 1
START = 1_700_000_000  # seconds; the first day of the shop


class Rng:
    """splitmix64."""

    def __init__(self, seed):
        self.state = seed & MASK

    def next(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)

    def below(self, n):
        """An integer in [0, n): the high 32 bits, scaled."""
        return ((self.next() >> 32) * n) >> 32

    def percent(self, p):
        return self.below(100) < p

    def shuffle(self, a):
        """Fisher-Yates, from the end; in place."""
        for i in range(len(a) - 1, 0, -1):
            j = self.below(i + 1)
            a[i], a[j] = a[j], a[i]

    def sample(self, a, k):
        """k different elements: the first k of a shuffled copy."""
        b = list(a)
        self.shuffle(b)
        return b[:k]


DEFAULTS = dict(users=2000, categories=30, motifs=20, min_items=5, max_items=7, taste_percent=50, first_percent=60, second_percent=25)


def articles(text):
    """"a" before a vowel becomes "an"."""
    words = text.split(" ")
    for i in range(len(words) - 1):
        if words[i] == "a" and words[i + 1][0] in "aeiou":
            words[i] = "an"
    return " ".join(words)


class Shop:
    """items: list of dicts (item, title, caption, category, motif, colour);
    users: list of dicts (user, taste, items = indices into `items` in time order, times)."""

    def __init__(self, seed, **settings):
        s = self.s = {**DEFAULTS, **settings}
        rng = Rng(seed)
        categories = WORDS["categories"][: s["categories"]]
        n_cat, n_motif = len(categories), s["motifs"]
        motifs = rng.sample(WORDS["motifs"], n_motif)
        self.motifs = motifs
        self.items = []
        for c, category in enumerate(categories):
            names = rng.sample(WORDS["names"], n_motif)
            for m, motif in enumerate(motifs):
                colour = WORDS["colours"][rng.below(len(WORDS["colours"]))]
                pattern = WORDS["captions"][rng.below(len(WORDS["captions"]))]
                caption = articles(pattern.replace("{colour}", colour).replace("{category}", category).replace("{motif}", motif))
                self.items.append(dict(category=c, motif=m, title=names[m] + " " + category, caption=caption))
        # Item ids in a random order, so that an id says nothing.
        numbers = list(range(1, len(self.items) + 1))
        rng.shuffle(numbers)
        for item, number in zip(self.items, numbers):
            item["item"] = "i%04d" % number
        self.users = []
        for u in range(s["users"]):
            taste = rng.below(n_motif)
            length = s["min_items"] + rng.below(s["max_items"] - s["min_items"] + 1)
            time = START + rng.below(300 * 86400)
            category = rng.below(n_cat)
            items, times = [], []
            while len(items) < length:
                motif = taste if rng.percent(s["taste_percent"]) else rng.below(n_motif)
                index = category * n_motif + motif
                if index not in items:
                    items.append(index)
                    times.append(time)
                    time += 3600 + rng.below(5 * 86400)
                step = rng.below(100)
                if step < s["first_percent"]:
                    category = (category + 1) % n_cat
                elif step < s["first_percent"] + s["second_percent"]:
                    category = (category + 2) % n_cat
                else:
                    category = rng.below(n_cat)
            self.users.append(dict(user="u%05d" % (u + 1), taste=taste, items=items, times=times))


def save(shop, folder):
    """interactions.csv (user,item,time,title) and captions.csv (item_id,caption): the bytes that `mllm4rec demo` writes."""
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "interactions.csv"), "w") as f:
        f.write("user,item,time,title\n")
        for u in shop.users:
            for i, t in zip(u["items"], u["times"]):
                f.write("%s,%s,%d,%s\n" % (u["user"], shop.items[i]["item"], t, shop.items[i]["title"]))
    with open(os.path.join(folder, "captions.csv"), "w") as f:
        f.write("item_id,caption\n")
        for x in sorted(shop.items, key=lambda x: x["item"]):
            f.write("%s,%s\n" % (x["item"], x["caption"]))


if __name__ == "__main__":
    import sys
    save(Shop(int(sys.argv[1])), sys.argv[2])
