package decode_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"watershed/internal/bounded"
	"watershed/internal/decode"
	"watershed/schemas"
)

// cloudOracle decodes a CloudEvent the plain way, to what oracle makes of its data.
func cloudOracle(ev *schemas.Event, text []byte, from, to time.Time) ([]string, error) {
	escapes := strings.ReplaceAll(string(text), `\\`, "")
	if !json.Valid(text) || !utf8.Valid(text) || surrogate.MatchString(pair.ReplaceAllString(escapes, "")) {
		return nil, errors.New("not strict JSON")
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	if token, err := dec.Token(); err != nil || token != json.Delim('{') {
		return nil, errors.New("not an object")
	}
	got := map[string]json.RawMessage{}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, err
		}
		name := token.(string)
		var v json.RawMessage
		if err := dec.Decode(&v); err != nil {
			return nil, err
		}
		switch name {
		case "data_base64":
			return nil, errors.New("base64")
		case "specversion", "id", "source", "type", "time", "datacontenttype", "data":
			if got[name] != nil {
				return nil, errors.New("twice")
			}
			got[name] = v
		}
	}
	attributes := map[string]string{}
	for name, v := range got {
		var s *string
		if name == "data" {
			continue
		}
		if err := json.Unmarshal(v, &s); err != nil || s != nil && *s == "" {
			return nil, errors.New("no text")
		}
		if s != nil {
			attributes[name] = *s
		}
	}
	source := attributes["source"]
	if attributes["specversion"] != "1.0" || attributes["id"] == "" || source == "" || strings.ContainsAny(source, " \t\r\n") || attributes["type"] == "" {
		return nil, errors.New("an attribute is missing")
	}
	if content := attributes["datacontenttype"]; content != "" {
		if name, _, err := mime.ParseMediaType(content); err != nil || name != "application/json" && name != "text/json" && !strings.HasSuffix(name, "+json") {
			return nil, errors.New("not JSON")
		}
	}
	var data map[string]json.RawMessage
	if err := json.Unmarshal(got["data"], &data); err != nil || data == nil {
		return nil, errors.New("data is no object")
	}
	filled := strings.TrimSpace(string(got["data"]))
	add := func(field, value string) {
		quoted, _ := json.Marshal(value)
		comma := ","
		if strings.TrimSpace(filled[1:len(filled)-1]) == "" {
			comma = ""
		}
		filled = fmt.Sprintf("%s%s%q:%s}", filled[:len(filled)-1], comma, field, quoted)
	}
	if data[ev.ID] == nil {
		add(ev.ID, source+" "+attributes["id"])
	}
	if data[ev.Time] == nil && attributes["time"] != "" {
		if !zonedShape.MatchString(attributes["time"]) {
			return nil, errors.New("bad time")
		}
		add(ev.Time, attributes["time"])
	}
	return oracle(ev, []byte(filled), from, to)
}

// compareCloud decodes a CloudEvent both ways, alone and in a batch between two others.
func compareCloud(t testing.TB, ev *schemas.Event, text []byte) error {
	if bytes.Count(text, []byte("["))+bytes.Count(text, []byte("{")) > 60 {
		return nil // may be refused for its depth alone
	}
	limits := decode.Limits{Past: 1000 * time.Hour, Future: time.Hour}
	want, refused := cloudOracle(ev, text, logTime.Add(-limits.Past), logTime.Add(limits.Future))
	d := decode.New(ev, limits)
	rejects := d.AppendAs(formatOf(t, map[string]string{decode.ContentType: decode.CloudEvent}), text, 7, logTime)
	rec := d.Record()
	defer rec.Release()
	if got := values(ev, rec); refused != nil && (len(rejects) != 1 || len(got) > 0) {
		return fmt.Errorf("%q: got %s; the oracle says: %w", text, got, refused)
	} else if refused == nil && (len(rejects) > 0 || len(got) != 1 || fmt.Sprint(got[0]) != fmt.Sprint(want)) {
		return fmt.Errorf("%q: got %s %+v; want %s", text, got, rejects, want)
	}
	if !json.Valid(text) {
		return nil
	}
	other := `{"specversion":"1.0","id":"o","source":"s","type":"t","data":{` + base + `}}`
	many := fmt.Appendf(nil, " [%s, %s ,%s]\n", other, text, other)
	format := formatOf(t, map[string]string{decode.ContentType: decode.CloudEventBatch})
	more := d.AppendAs(format, many, 7, logTime)
	again := d.Record()
	defer again.Release()
	if len(more) == 1 && more[0].Row < 0 && again.NumRows() == 0 && refused != nil {
		return nil // its strings are not even JSON of RFC 8259
	}
	if len(more) != len(rejects) || int(again.NumRows()) != 3-len(more) {
		return fmt.Errorf("%q: in a batch got %d rows, rejects %+v; want %+v", text, again.NumRows(), more, rejects)
	}
	for _, r := range more {
		if r.Row != 1 || string(decode.Part(format, many, 1)) != string(r.Payload) || !bytes.Equal(bytes.TrimSpace(text), r.Payload) {
			return fmt.Errorf("%q: in a batch got the reject %+v", text, r)
		}
	}
	return nil
}

func cloudEvents() (all []string) {
	const spec = `"specversion":"1.0","id":"1","source":"/a/b","type":"t"`
	for _, f := range []string{
		spec + `,"data":{` + base + `}`, spec + `,"data":{"t":"2024-02-29T12:00:00Z"}`, spec + `,"time":"2024-02-29T12:00:00Z","data":{}`, spec + `,"data":{}`, spec,
		spec + `,"time":"2024-02-29T13:00:00.123456789+01:00","data":{"s":"own"}`, spec + `,"time":"2024-02-29 12:00:00","data":{}`, spec + `,"time":null,"data":{` + base + `}`,
		spec + `,"time":1,"data":{}`, spec + `,"time":"","data":{` + base + `}`, `"data":{"t":"2024-02-29T12:00:00Z"},` + spec, spec + `,"data":{` + base + `},"data":{` + base + `}`,
		spec + `,"id":"2","data":{` + base + `}`, spec + `,"data":null`, spec + `,"data":"{}"`, spec + `,"data":[]`, spec + `,"data_base64":"e30="`,
		spec + `,"datacontenttype":"application/json; charset=utf-8","data":{` + base + `}`, spec + `,"datacontenttype":"text/xml","data":{` + base + `}`, spec + `,"datacontenttype":null,"data":{` + base + `}`,
		`"specversion":"0.3","id":"1","source":"/a","type":"t","data":{` + base + `}`, `"specversion":"1.0","id":"\u00e9 \"","source":"/a\u0062","type":"t","data":{"t":1709208000000000}`,
		`"specversion":"1.0","id":"1","source":"a b","type":"t","data":{` + base + `}`, `"specversion":"1.0","source":"/a","type":"t","data":{` + base + `}`, `"specversion":"1.0","id":"","source":"/a","type":"t","data":{` + base + `}`,
		spec + `,"ext":1,"ext2":{"x":[true]},"data":{` + base + `}`, spec + `,"ext":[,],"data":{` + base + `}`, spec + `,"data":{` + base + `,"zz":1}`, spec + `,"data":{` + base + `,"i":"x"}`, ``,
	} {
		all = append(all, "{"+f+"}", " { "+f+" } \n", "{"+f, "{"+f+"}x", "["+f+"]")
	}
	return all
}

func TestCloudEventsAgainstOracle(t *testing.T) {
	for _, text := range cloudEvents() {
		for _, ev := range []*schemas.Event{everyType(), lenient()} {
			if err := compareCloud(t, ev, []byte(text)); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestCloudEventsInBinaryMode(t *testing.T) {
	f := func(more map[string]string, data, want string) {
		t.Helper()
		header := map[string]string{"ce-specversion": "1.0", "ce-id": "%C3%A9%20%22", "ce-source": "/a", "ce-type": "t", "ce-time": "2024-02-29T12:00:00Z"}
		for k, v := range more {
			header[k] = v
		}
		got := ""
		if format, err := decode.FormatOf(func(name string) string { return header[name] }); err != nil {
			got = err.Error()
		} else {
			d := decode.New(everyType(), decode.Limits{})
			for _, r := range d.AppendAs(format, []byte(data), 1, logTime) {
				got = r.Reason
				if fmt.Sprint(r.Header) != fmt.Sprint(header) && len(more) == 0 {
					t.Errorf("got headers %v; want %v", r.Header, header)
				}
			}
			rec := d.Record()
			if v := values(everyType(), rec); len(v) > 0 {
				got = strings.Join(v[0][:2], " ")
			}
			rec.Release()
		}
		if got != want && (want == "" || !strings.Contains(got, want)) {
			t.Errorf("%v %s: got %s; want %s", more, data, got, want)
		}
	}
	f(nil, `{}`, `"/a é \"" 1709208000000000`)
	f(nil, `{"s":"own","t":1709208000000001}`, `"own" 1709208000000001`)
	f(nil, `{"s":1}`, "field s: want string")
	f(map[string]string{"Content-Type": "application/json"}, "{\n}", `"/a é \"" 1709208000000000`)
	f(map[string]string{"Content-Type": "text/plain"}, `{}`, "is not known")
	f(map[string]string{"Content-Type": "application/x-ndjson"}, `{}`, "one event")
	f(map[string]string{"ce-time": ""}, `{}`, "field t: missing")
	f(map[string]string{"ce-time": "yesterday"}, `{}`, "time: want one of RFC 3339")
	f(map[string]string{"ce-id": "%zz"}, `{}`, "ce-id: ")
	f(map[string]string{"ce-id": "%ff"}, `{}`, "ce-id: not UTF-8")
	f(map[string]string{"ce-id": ""}, `{}`, "ce-id: missing")
	f(map[string]string{"ce-specversion": ""}, `{}`, "ce-specversion: missing")
	f(map[string]string{"ce-specversion": "2.0"}, `{}`, `ce-specversion: want 1.0, got "2.0"`)
	f(map[string]string{"ce-source": strings.Repeat("x", 3000)}, `{}`, "more than 2 KiB")
}

func FuzzCloudEvent(f *testing.F) {
	for _, text := range cloudEvents() {
		f.Add([]byte(text))
	}
	single, many := formatOf(f, map[string]string{decode.ContentType: decode.CloudEvent}), formatOf(f, map[string]string{decode.ContentType: decode.CloudEventBatch})
	strict, loose := everyType(), lenient()
	f.Fuzz(func(t *testing.T, message []byte) {
		for _, ev := range []*schemas.Event{strict, loose} {
			for _, format := range []decode.Format{single, many} {
				d := decode.New(ev, decode.Limits{})
				bounded.Run(t, func() {
					if d.AppendAs(format, message, 1, logTime) == nil && d.Rows() == 0 {
						t.Error("neither an event nor a reject")
					}
				})
			}
			if err := compareCloud(t, ev, message); err != nil {
				t.Error(err)
			}
		}
	})
}
