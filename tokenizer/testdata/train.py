"""Makes train.json: the vocabulary that the Hugging Face trainer learns from train.txt (one document).

    python train.py          # tokenizers 0.23.3
"""
import pathlib
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

here = pathlib.Path(__file__).parent
t = Tokenizer(models.BPE())
t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                           pre_tokenizers.ByteLevel(add_prefix_space=False)])
t.decoder = decoders.ByteLevel()
trainer = trainers.BpeTrainer(vocab_size=700, min_frequency=2, show_progress=False,
                              special_tokens=["<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>"],
                              initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
t.train_from_iterator([(here / "train.txt").read_text(encoding="utf-8")], trainer)
t.save(str(here / "train.json"))
