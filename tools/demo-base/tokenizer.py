"""The base's tokenizer: byte-level BPE over shop texts and everyday words. Any text can be encoded; there is no unknown token."""
import json
import os

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from prompt import LETTERS, head_text, item_text
from shop import WORDS, Shop

# An index with its opening brace is one piece; the rest is words, numbers and signs. No lookahead.
PATTERN = r"\([0-9A-Z]{1,2}\)(?: \{)?| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+\n*|\s+"
EVERYDAY = """the of and to in is you that it he was for on are as with his they I at be this have from or one had by word but not what all were we when your can said there
use an each which she do how their if will up other about out many then them these so some her would make like him into time has look two more write go see number no way could
people my than first water been call who oil its now find long down day did get come made may part over new sound take only little work know place year live me back give most very
after thing our just name good sentence man think say great where help through much before line right too mean old any same tell boy follow came want show also around form three
small set put end does another well large must big even such because turn here why ask went men read need land different home us move try kind hand picture again change off play
spell air away animal house point page letter mother answer found study still learn should world movie film book game toy beauty cream hair skin hand soap oil kit pack set kids
women men woman girl cat dog sitting standing holding wearing front close view photo image poster cover box bottle wooden glass plastic metal paper cloth leather cotton wool
person face head eyes street city night background text words""".split()


def singular(text):
    """Without plurals: "stars" becomes the token of "star" and an ending, so that both begin alike."""
    one = {many: one for one, many in WORDS["shapes"]}
    return " ".join(one.get(w, w) for w in text.split(" "))


def build(folder, vocab):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(PATTERN), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    corpus = []
    for seed in range(500, 508):
        for item in Shop(seed, users=0).items:
            corpus.append(singular(item_text(item, True)))
    for w in WORDS["categories"] + WORDS["colours"] + WORDS["patterns"] + WORDS["counts"]:
        corpus += [w, " " + w] * 60
    for one, _ in WORDS["shapes"]:  # so often that they are put together before any ending, such as the "es" of "stripes"
        corpus += [one, " " + one] * 3000
    for w in WORDS["names"]:
        corpus += [w] * 60
    for w in EVERYDAY:
        corpus += [" " + w] * 8 + [w]
    for i in [str(n) for n in range(1, 21)] + list(LETTERS):
        corpus += ["(%s) {" % i, "(%s)" % i] * 200
    corpus += [head_text(True), head_text(False), "}\n", "}\n\n", "Candidate pool:\n", "### Response:\n"] * 300
    trainer = trainers.BpeTrainer(vocab_size=vocab, special_tokens=["<unk>", "<s>", "</s>"], initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False)
    tok.train_from_iterator(corpus, trainer)
    tok.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    os.makedirs(folder, exist_ok=True)
    tok.save(os.path.join(folder, "tokenizer.json"))
    with open(os.path.join(folder, "tokenizer_config.json"), "w") as f:
        json.dump(dict(add_bos_token=True, add_eos_token=False, bos_token="<s>", eos_token="</s>", pad_token="<unk>", unk_token="<unk>", model_max_length=1536, tokenizer_class="PreTrainedTokenizerFast"), f, indent=2)
        f.write("\n")
    return tok
