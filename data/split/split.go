package split

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"autodev/data"
	"autodev/data/numpyrng"
)

// ByRepository puts about the given fraction of the repositories into eval and the others into train. The side of a repository depends on
// its name and the seed alone, so it never changes when other repositories come or go. Documents without a repository
// count as a repository of their own each, by path, or by content where there is no path.
func ByRepository(src data.Source, seed uint64, fraction float64) (train, eval data.Source, err error) {
	if !(fraction > 0 && fraction < 1) {
		return nil, nil, fmt.Errorf("split fraction %v: expected more than 0 and less than 1", fraction)
	}
	held := func(d data.Document) bool { return HeldOut(d, seed, fraction) }
	name := fmt.Sprintf("repository %d %v", seed, fraction)
	return data.Filter(src, "train by "+name, func(d data.Document) bool { return !held(d) }), data.Filter(src, "eval by "+name, held), nil
}

// HeldOut reports whether ByRepository puts the document into eval.
func HeldOut(d data.Document, seed uint64, fraction float64) bool {
	kind, name := "repository", d.Repository
	if name == "" {
		kind, name = "path", d.Path
	}
	if name == "" {
		kind, name = "content", d.Content
	}
	h := sha256.New()
	var s [8]byte
	binary.LittleEndian.PutUint64(s[:], seed)
	h.Write(s[:])
	io.WriteString(h, kind+"\x00"+name)
	u := binary.LittleEndian.Uint64(h.Sum(nil)) >> 11
	return float64(u)/(1<<53) < fraction
}

// ByFiles puts the documents whose path, or "repository/path", is listed into eval and the others into train. A listed
// name that ends in a slash stands for everything below it.
func ByFiles(src data.Source, files []string) (train, eval data.Source, err error) {
	if len(files) == 0 {
		return nil, nil, errors.New("split by files: no file is listed")
	}
	files = slices.Clone(files)
	slices.Sort(files)
	exact := map[string]bool{}
	var folders []string
	for _, f := range files {
		if strings.HasSuffix(f, "/") {
			folders = append(folders, f)
		} else {
			exact[f] = true
		}
	}
	held := func(d data.Document) bool {
		full := d.Repository + "/" + d.Path
		if exact[d.Path] || exact[full] {
			return true
		}
		for _, f := range folders {
			if strings.HasPrefix(d.Path, f) || strings.HasPrefix(full, f) {
				return true
			}
		}
		return false
	}
	sum := sha256.Sum256([]byte(strings.Join(files, "\n")))
	name := hex.EncodeToString(sum[:8])
	return data.Filter(src, "train by files "+name, func(d data.Document) bool { return !held(d) }), data.Filter(src, "eval by files "+name, held), nil
}

// Values of the original protocol.
const (
	OriginalTestSize = 0.005
	OriginalSeed     = 0
)

// Original is datasets.Dataset.train_test_split(test_size, seed) with numpy's random numbers: the first ⌈testSize·N⌉ of
// a permutation of all documents are eval, the others train, both in the permutation's order. It holds all
// documents in memory, at most maxBytes of text (0: no limit).
func Original(ctx context.Context, src data.Source, testSize float64, seed uint64, maxBytes int64) (train, eval data.Slice, err error) {
	if !(testSize > 0 && testSize < 1) {
		return nil, nil, fmt.Errorf("original split: test size %v: expected more than 0 and less than 1", testSize)
	}
	docs, err := data.Load(ctx, src, maxBytes)
	if err != nil {
		return nil, nil, fmt.Errorf("original split: %w", err)
	}
	n := int(math.Ceil(testSize * float64(len(docs))))
	if n >= len(docs) {
		return nil, nil, fmt.Errorf("original split: %d documents, of which %d would be test: none is left to train on", len(docs), n)
	}
	all := make(data.Slice, len(docs))
	for i, j := range numpyrng.NewGenerator(seed).Permutation(len(docs)) {
		all[i] = docs[j]
	}
	return all[n:], all[:n], nil
}
