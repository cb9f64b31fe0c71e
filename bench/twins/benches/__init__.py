"""What is timed. Every bench returns a function of the number of the repetition, the error or None, and, where all
contestants have the same weights and inputs, what comes out."""

from .attention import attention, attention_backward
from .captions import captions
from .dense import copy, product
from .fp8 import fp8_product
from .nf4 import nf4_dequantize, nf4_input_gradient, nf4_product
from .ranker import ranker_scores, ranker_step
from .retriever import retriever_step, scan, top
from .rows import rms_norm, rope, swiglu

BENCHES = {
    bench.__name__: bench
    for bench in (copy, product, nf4_dequantize, nf4_product, nf4_input_gradient, fp8_product)
    + (attention, attention_backward, rms_norm, rope, swiglu, scan, retriever_step, top, captions)
    + (ranker_step, ranker_scores)
}
