package typing

import (
	"context"
	"fmt"
)

// Reference returns the answer of an engine that keeps nothing from one request to the next and guesses nothing.
type Reference func(ctx context.Context, prefix, suffix string, tokens int) (string, error)

// Checked says how answers compare with a reference's.
type Checked struct {
	Computed      int `json:"computed"` // answers of the model that were compared
	ComputedEqual int `json:"computed_equal"`
	// Answers from earlier suggestions are counted apart. Unless they are to be exact, the model could say something else where the rest of what was
	// shown is other tokens.
	Reused      int  `json:"reused"`
	ReusedEqual int  `json:"reused_equal"`
	Exact       bool `json:"exact"`
}

// Err says whether an answer differs that should not.
func (c *Checked) Err() error {
	if c == nil {
		return nil
	}
	all, equal := c.Computed, c.ComputedEqual
	if c.Exact {
		all, equal = all+c.Reused, equal+c.ReusedEqual
	}
	if equal == all {
		return nil
	}
	return fmt.Errorf("%d of %d answers differ from those of an engine without cache and speculation", all-equal, all)
}

// Check compares up to n answers of a run, spread over it, with a reference's. Where the run was scripted the server is asked again for its model's
// own answers, with what it has kept from the run.
func Check(ctx context.Context, run *Run, s Server, reference Reference, n int, o Options) (*Checked, error) {
	var all []*Sample
	for i := range run.Samples {
		if run.Samples[i].Answered {
			all = append(all, &run.Samples[i])
		}
	}
	c := newClient(s.URL)
	defer c.http.CloseIdleConnections()
	checked := &Checked{Exact: o.Exact}
	n = min(n, len(all))
	for i := range n {
		q := all[i*len(all)/n]
		got, reused := q.Text, q.Generated == 0
		if o.Scripted {
			if s.Expect != nil {
				s.Expect(q.prefix, nil)
			}
			a, err := c.ask(ctx, infill{Prefix: q.prefix, Suffix: q.suffix, Tokens: o.MaxTokens})
			if err != nil {
				return nil, err
			}
			got, reused = a.Content, false
		}
		want, err := reference(ctx, q.prefix, q.suffix, o.MaxTokens)
		if err != nil {
			return nil, err
		}
		switch {
		case reused && want == "" && got == "":
			// An empty answer has no tokens either.
			checked.Computed++
			checked.ComputedEqual++
		case reused:
			checked.Reused++
			if got == want {
				checked.ReusedEqual++
			}
		default:
			checked.Computed++
			if got == want {
				checked.ComputedEqual++
			}
		}
		if o.Progress != nil {
			o.Progress(i+1, n)
		}
	}
	return checked, nil
}
