package chat

import (
	"fmt"
	"strings"
	"time"
)

// strftime formats t as C does in its own locale. Letters that it does not know stay as they are.
func strftime(format string, t time.Time) string {
	layouts := map[byte]string{
		'a': "Mon", 'A': "Monday", 'b': "Jan", 'h': "Jan", 'B': "January", 'd': "02", 'e': "_2", 'm': "01", 'y': "06", 'Y': "2006",
		'H': "15", 'I': "03", 'M': "04", 'S': "05", 'p': "PM", 'j': "002", 'Z': "MST", 'z': "-0700",
		'D': "01/02/06", 'F': "2006-01-02", 'T': "15:04:05", 'R': "15:04", 'x': "01/02/06", 'X': "15:04:05", 'c': "Mon Jan _2 15:04:05 2006",
	}
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			b.WriteByte(format[i])
			continue
		}
		i++
		plain := format[i] == '-' && i+1 < len(format) // GNU: without leading zeros
		if plain {
			i++
		}
		c := format[i]
		text := ""
		switch layout, ok := layouts[c]; {
		case ok:
			text = t.Format(layout)
		case c == 'f':
			text = fmt.Sprintf("%06d", t.Nanosecond()/1000)
		case c == 's':
			text = fmt.Sprint(t.Unix())
		case c == 'w':
			text = fmt.Sprint(int(t.Weekday()))
		case c == 'n', c == 't', c == '%':
			text = map[byte]string{'n': "\n", 't': "\t", '%': "%"}[c]
		default:
			text = "%" + string(c)
		}
		if plain {
			if text = strings.TrimLeft(text, "0 "); text == "" {
				text = "0"
			}
		}
		b.WriteString(text)
	}
	return b.String()
}
