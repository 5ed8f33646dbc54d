package infer

import "strings"

// stopText finds stop strings in a text that arrives in pieces. It holds back what may still become a stop string, so
// that no part of one is ever shown.
type stopText struct {
	stops []string
	held  string
	past  int    // bytes of held in which no stop string counts that is complete there
	hit   string // the stop string that ended the text
}

// push takes the next piece and returns what may be shown now; after it, hit tells whether the text has ended. The result
// does not depend on how the text is cut into pieces: the stop string that is complete first ends the text, and of those
// complete at the same character the longest.
func (s *stopText) push(piece string) string {
	s.held += piece
	start, end := -1, -1
	for _, stop := range s.stops {
		from := max(0, s.past-len(stop)+1)
		i := strings.Index(s.held[from:], stop)
		if i < 0 {
			continue
		}
		i += from
		if e := i + len(stop); end < 0 || e < end || e == end && i < start {
			start, end, s.hit = i, e, stop
		}
	}
	if end >= 0 {
		show := s.held[:start]
		s.held = ""
		return show
	}
	n := len(s.held) - s.pending()
	show := s.held[:n]
	s.held, s.past = s.held[n:], max(0, s.past-n)
	return show
}

// pass takes a piece in which the text does not end, whatever stop string is complete in it.
func (s *stopText) pass(piece string) string {
	s.past = len(s.held) + len(piece)
	return s.push(piece)
}

// flush returns what is held back, at the end of a text that no stop string ended.
func (s *stopText) flush() string {
	show := s.held
	s.held, s.past = "", 0
	return show
}

// pending returns the length of the longest end of held that begins a stop string.
func (s *stopText) pending() int {
	longest := 0
	for _, stop := range s.stops {
		for n := min(len(stop)-1, len(s.held)); n > longest; n-- {
			if strings.HasSuffix(s.held, stop[:n]) {
				longest = n
				break
			}
		}
	}
	return longest
}
