// Package tokenizer is byte-level byte-pair encoding as the code models use it: it reads Hugging Face tokenizer.json
// files (and vocab.json with merges.txt), turns text into token ids and back, and trains new vocabularies.
//
// A text goes through four stages, each in the file of its name:
//
//	added.go   added tokens ("<fim-prefix>", "<|endoftext|>") are cut out; only EncodeSpecial does this
//	nfc.go     Unicode normalisation, for the vocabularies that ask for it (Qwen)
//	split.go   the text is cut into words by the vocabulary's pattern
//	bpe.go     the bytes of each word are merged into tokens
//
// vocabulary.go tells what a vocabulary consists of, for other file formats.
//
// Encode never looks for added tokens, so text of a user cannot contain a control token: "<fim-prefix>" typed by a
// user is encoded as the letters it is made of. Ids equal those of the Hugging Face tokenizers package on every valid
// UTF-8 text (EncodeSpecial equals its encode(text, add_special_tokens=False); Encode equals it for texts without
// added tokens).
//
// Text is bytes: input need not be valid UTF-8, and DecodeBytes(Encode(x)) is x for vocabularies that hold all 256
// bytes and do not normalise. The published StarCoder-family vocabularies lack the bytes that never occur in UTF-8;
// such a byte of the input becomes U+FFFD.
//
// A *Tokenizer is immutable and safe for concurrent use. What this package must not hold: prompt templates, FIM
// transformations, packing or anything else that knows what the tokens are for.
package tokenizer
