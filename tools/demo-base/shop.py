"""A made-up gift shop: users, items and interactions from one seed.

Pure integer arithmetic on one splitmix64 stream, so that any language can reproduce a shop bit by bit.

The shop sells categories x shapes items: every category once with every shape of this shop. The title of an item names
its category and a model name that says nothing ("Tavi mug"). The shape stands only in its picture, and so in the caption
("three red stars on stripes"); colour, pattern and count are noise. The pictures are drawn by `mllm4rec shop`; here a
caption is what a reader without fault would make of them.

A user walks through the ring of categories and loves one shape, the taste. The category of the next purchase mostly
follows from the last one, which a retriever learns from interactions alone; the shape is the user's taste with
probability `taste_percent`, else any. There are few interactions an item, so which items share a shape is hard to learn
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


DEFAULTS = dict(users=2000, categories=30, shapes=20, min_items=5, max_items=7, taste_percent=50, first_percent=60, second_percent=25)


def caption(count, colour, shape, pattern):
    """In words; `shape` is the pair of singular and plural, `count` begins with 0."""
    words = [WORDS["counts"][count], colour, shape[count > 0]]
    return " ".join(words + ([] if pattern == "plain" else ["on", pattern]))


class Shop:
    """items: list of dicts (item, title, caption, category, shape; the last two as numbers);
    users: list of dicts (user, taste, items = indices into `items` in time order, times)."""

    def __init__(self, seed, **settings):
        s = self.s = {**DEFAULTS, **settings}
        rng = Rng(seed)
        categories = WORDS["categories"][: s["categories"]]
        n_cat, n_shape = len(categories), s["shapes"]
        self.shapes = rng.sample(WORDS["shapes"], n_shape)
        self.items = []
        for c, category in enumerate(categories):
            names = rng.sample(WORDS["names"], n_shape)
            for n, shape in enumerate(self.shapes):
                colour = WORDS["colours"][rng.below(len(WORDS["colours"]))]
                pattern = WORDS["patterns"][rng.below(len(WORDS["patterns"]))]
                count = rng.below(len(WORDS["counts"]))
                self.items.append(dict(category=c, shape=n, title=names[n] + " " + category, caption=caption(count, colour, shape, pattern)))
        # Item ids in a random order, so that an id says nothing.
        numbers = list(range(1, len(self.items) + 1))
        rng.shuffle(numbers)
        for item, number in zip(self.items, numbers):
            item["item"] = "i%04d" % number
        self.users = []
        for u in range(s["users"]):
            taste = rng.below(n_shape)
            length = s["min_items"] + rng.below(s["max_items"] - s["min_items"] + 1)
            time = START + rng.below(300 * 86400)
            category = rng.below(n_cat)
            items, times = [], []
            while len(items) < length:
                shape = taste if rng.percent(s["taste_percent"]) else rng.below(n_shape)
                index = category * n_shape + shape
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
    """interactions.csv (user,item,time,title), the bytes that `mllm4rec shop` writes, and captions.csv (item_id,caption)."""
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
