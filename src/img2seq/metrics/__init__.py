"""Scores of captions: the numbers of COCO's evaluation, without Java, and how varied the captions are."""

from img2seq.metrics.formats import read_references, read_results
from img2seq.metrics.ptb import ptb_tokenize
from img2seq.metrics.score import Scores, score

__all__ = ["Scores", "ptb_tokenize", "read_references", "read_results", "score"]
