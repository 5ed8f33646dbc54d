// Package fim rearranges documents for fill-in-the-middle training (Bavarian et al., Efficient Training of Language Models
// to Fill in the Middle, 2022). A document is cut at two places into prefix, middle and suffix, and becomes
//
//	PSM: <prefix> P <suffix> S <middle> M
//	SPM: <prefix> <suffix> S <middle> P M     (the paper's variant 2, which shares PSM's order of sentinels)
//
// Transformer is AutoDev's own way: cuts between characters (or tokens), examples that fit whole into a window, decisions
// keyed by (seed, epoch, document). Permute and Original are the original protocol's token-level transform with numpy's random
// numbers.
//
// What must not live here: filling windows (pack), reading documents (source).
package fim
