package data

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
)

// LanguageStats counts the documents of one language.
type LanguageStats struct {
	Language     string `json:"language"` // "" when unknown
	Documents    int64  `json:"documents"`
	Bytes        int64  `json:"bytes"`
	Lines        int64  `json:"lines"` // a last line without end counts
	Repositories int64  `json:"repositories"`
	Tokens       int64  `json:"tokens,omitempty"`
}

// CollectStats reads all of src and counts by language, in name order. Tokens are counted by encode if it is not nil, and of documents
// with ready ids always.
func CollectStats(ctx context.Context, src Source, encode func(string) []int32) ([]LanguageStats, error) {
	type counter struct {
		LanguageStats
		repositories map[string]bool
	}
	by := map[string]*counter{}
	for d, err := range Documents(ctx, src) {
		if err != nil {
			return nil, err
		}
		c := by[d.Language]
		if c == nil {
			c = &counter{LanguageStats: LanguageStats{Language: d.Language}, repositories: map[string]bool{}}
			by[d.Language] = c
		}
		c.Documents++
		c.Bytes += int64(len(d.Content))
		c.Lines += int64(strings.Count(d.Content, "\n"))
		if d.Content != "" && !strings.HasSuffix(d.Content, "\n") {
			c.Lines++
		}
		if d.Repository != "" {
			c.repositories[d.Repository] = true
		}
		switch {
		case d.IDs != nil:
			c.Tokens += int64(len(d.IDs))
		case encode != nil:
			c.Tokens += int64(len(encode(d.Content)))
		}
	}
	if len(by) == 0 {
		return nil, errors.New("the data source holds no document")
	}
	var out []LanguageStats
	for _, name := range slices.Sorted(maps.Keys(by)) {
		c := by[name]
		c.LanguageStats.Repositories = int64(len(c.repositories))
		out = append(out, c.LanguageStats)
	}
	return out, nil
}
