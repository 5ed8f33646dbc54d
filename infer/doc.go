// Package infer turns a prompt into a completion: packed weights, the key/value cache, scoring, sampling, stopping and
// the budget of the prompt.
//
//	model.go     a checkpoint made ready: weights packed once, the model's Forward traced once into a program
//	weights.go   how matrices are kept: float32, int8, int4; products with them
//	pack.go      packed folders (package model/packed): written, with calibration in pack_calibrated.go; loaded
//	hugepages.go mapped weights moved into huge pages, while they are used
//	program.go   the traced program: model.Builder recorded as steps over scratch registers
//	batch.go     a pass: the program run over the new tokens of any number of sequences
//	processor.go a session's part on the processor: keys and values, passes over it alone
//	card.go      the same on a CUDA device: what a card has, how it is opened and given back
//	card_memory.go what lies where in its memory, and how much that is
//	card_weights.go how a card keeps weights: which formats, where, how they get there, what fits
//	card_sequence.go a sequence on a card: its pages of keys and values, passes over it alone
//	card_run.go  passes over any number of sequences on a card, and what comes of them
//	card_pass.go what is launched for a number of tokens, as a graph where they are few
//	card_norms.go which norms are within the products that read them
//	card_inputs.go what the kernels of a pass are told of its rows
//	card_choose.go tokens chosen by a card, greedily or drawn, where no penalties or constraints change its logits
//	card_score.go scoring on a card
//	session.go   one sequence and its key/value cache: Append, Truncate
//	chunk.go     how long the parts are that a prompt is evaluated in
//	score.go     log-probabilities of given tokens, without generating
//	prompt.go    prefix and suffix to token ids within an exact budget
//	files.go     other files in a prompt, in the model's own format or as comments
//	dialect.go   prompts that spell the markers of some model, taken apart for the one that is loaded
//	heal.go      words that the cursor splits
//	sample.go    logits to the next token
//	option.go    options that cannot be honoured
//	stop.go      text so far to text that may be shown
//	shape.go     the same by the form of the text: the rules of a Shape, one after the other
//	shape_block.go   lines that belong to a statement or a block
//	shape_overlap.go what repeats the text after the cursor
//	shape_loop.go    what goes round in circles
//	site.go      the place of a completion: brackets, indentation and lines around the cursor
//	lexer.go     brackets, strings and comments, as far as that can be told without a grammar
//	language.go  what these rules know of programming languages
//	comments.go  code without its documentation, to tell whether two texts differ in more
//	writer.go    tokens to the text that is shown
//	speculate.go guesses at the next tokens from the prompt and recent text, and how many are worth a pass
//	generate.go  what a completion is asked for with and what it is; one made by itself
//	generation.go a completion under way: which tokens it needs evaluated next, and what it makes of them
//	blocks.go    the memory of keys and values, in parts that sequences share
//	suggestions.go recent completions, for whoever types along
//	reuse.go     what these say to a request, without the model
//	prefix.go    keys and values kept for prompts that begin alike, within a limit
//	tally.go     how much memory sequences take that share some of it
//	prefix_tree.go where those are by their tokens, and which were used least recently
//	adapter.go   LoRA adapters: loaded, replaced and ended while the model runs
//	lowrank.go   what an adapter adds to the products with one matrix
//	engine.go    completions for many callers at a time: admission, the queue, who is turned away
//	call.go      one call: its requests, the chunks on the way to its receiver, its results
//	scheduler.go the goroutine that owns all passes
//	pass.go      a pass of an engine: whose turn it is, what is in it, what came of it; passes that make way
//	order.go     who takes part in them, who pauses, who waits
//	parts.go     with how much of which prompts, so that nobody waits long
//	stats.go     what an engine has done and is doing
//	text.go      what clients may ask of the tokenizer
//
// The package knows nothing of HTTP, editors or training, and builds without Gorgonia.
//
// Everything is a function of (weights, prompt, options, seed): the number of threads, the chunks a prompt was read in, what else was in
// the same passes, whether keys and values came from the cache or an earlier request, and how many tokens were guessed rightly or wrongly change
// no bit of any logit. On a card that holds for the tokens of decoding; longer parts of prompts differ by rounding with the chunks and with what is
// in the same passes (card.go).
package infer
