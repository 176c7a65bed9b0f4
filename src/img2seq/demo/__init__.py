"""The embedded data set of `img2seq demo`: generated scenes with five true captions each."""
