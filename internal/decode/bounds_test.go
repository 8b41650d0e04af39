package decode_test

import (
	"bytes"
	"strings"
	"testing"

	"watershed/internal/bounded"
	"watershed/internal/decode"
)

// TestLargeMessagesAreBounded decodes messages as large as NATS takes that are as bad as they can be.
func TestLargeMessagesAreBounded(t *testing.T) {
	const size = 1 << 20
	for name, part := range map[string]string{
		"short lines": "x\n", "empty objects": "{}\n", "events": "{" + base + "}\n", "blank": " \n", "unclosed": `{"s":"`, "digits": "9", "nested": `{"s":[`,
		"escapes": `{"s":"\u0041`, "unknown fields": `{"zzzzzzzz":1}` + "\n", "late lines": `{"s":"x","t":0}` + "\n", "quotes": `"`, "exponents": `{"d":1e999999999}` + "\n",
	} {
		prefixes := []string{""}
		if !strings.HasSuffix(part, "\n") { // one line, which is the value of a field
			prefixes = append(prefixes, `{"s":"x","d":0.`, `{"f":`, `{"i":`, `{"s":"`, `{"t":"`)
		}
		for _, prefix := range prefixes {
			message := append([]byte(prefix), bytes.Repeat([]byte(part), size/len(part))...)
			t.Run(strings.TrimSpace(name+" "+prefix), func(t *testing.T) {
				bounded.Run(t, func() {
					d := decode.New(everyType(), decode.Limits{})
					rejects := d.Append(message, 1, logTime)
					if d.Rows() == 0 && len(rejects) == 0 {
						t.Error("neither an event nor a reject")
					}
				})
			})
		}
	}
}
