package devserver

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"watershed/internal/durable"
)

const (
	loopback   = "127.0.0.1"
	adminUser  = "watershed"
	readerUser = "reader"
)

// credentials are the passwords of the two users, kept in a file that only its owner may read.
type credentials struct {
	Admin  string `json:"admin"`
	Reader string `json:"reader"`
}

// loadCredentials returns those of the directory, with what is given put over them. What is neither
// given nor stored is drawn, and stored, so that a restart has the same.
func loadCredentials(path string, given credentials) (credentials, error) {
	var stored credentials
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, &stored)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return credentials{}, fmt.Errorf("read credentials %s: %w", path, err)
	}
	known := stored
	pick := func(kept *string, given string) {
		switch {
		case given != "":
			*kept = given
		case *kept == "":
			*kept = rand.Text()
		}
	}
	pick(&stored.Admin, given.Admin)
	pick(&stored.Reader, given.Reader)
	if stored == known {
		return stored, nil
	}
	text, err = json.Marshal(stored)
	if err != nil {
		return credentials{}, err
	}
	return stored, durable.WriteSecret(path, append(text, '\n'))
}

// serverTemplate is ClickHouse's main configuration.
//
// The tasks that look for parts to merge share a pool that is as small as the machine by default: with
// two processors ClickHouse logs many times a second that it has paused them.
//
// The sleeps are those of each table's search for merges, while it finds none: an insert wakes it at
// once. By default each looks several times a second at first, which took a tenth of a processor with
// 30 databases that nobody used.
//
// A reader may set only what readerConstraints name, which needs
// settings_constraints_replace_previous; system tables beyond the harmless ones need a grant.
const serverTemplate = `<clickhouse>
  <logger>
    <level>information</level>
    <log>{{xml .Log}}</log>
    <errorlog>{{xml .ErrorLog}}</errorlog>
    <size>20M</size>
    <count>3</count>
  </logger>
  <users_config>{{xml .Users}}</users_config>
  <user_files_path>{{xml .UserFiles}}/</user_files_path>
  <timezone>UTC</timezone>
  <background_schedule_pool_size>16</background_schedule_pool_size>
  <background_processing_pool_thread_sleep_seconds_if_nothing_to_do>1</background_processing_pool_thread_sleep_seconds_if_nothing_to_do>
  <background_processing_pool_task_sleep_seconds_when_no_work_min>2</background_processing_pool_task_sleep_seconds_when_no_work_min>
  <background_processing_pool_task_sleep_seconds_when_no_work_multiplier>2</background_processing_pool_task_sleep_seconds_when_no_work_multiplier>
{{- if .MaxMemory}}
  <max_server_memory_usage>{{.MaxMemory}}</max_server_memory_usage>
{{- end}}
  <access_control_improvements>
    <settings_constraints_replace_previous>true</settings_constraints_replace_previous>
    <select_from_system_db_requires_grant>true</select_from_system_db_requires_grant>
    <select_from_information_schema_requires_grant>true</select_from_information_schema_requires_grant>
    <table_engines_require_grant>true</table_engines_require_grant>
  </access_control_improvements>
</clickhouse>
`

// usersTemplate declares three users.
//
// The first is the one that the child's own queries run as. ClickHouse insists on calling it "default"
// and giving it no password, on the network too; so it may do only what those queries need, and its
// quota is used up when they have begun.
//
// The reader's constraints leave to it the limits that common clients set by themselves. Its quota is a
// brake on runaway clients, not a share: per minute, for all sessions together. Half of the memory stays
// for the writers (0: no limit, when the server has none).
const usersTemplate = `<clickhouse>
  <profiles>
    <default/>
    <reader>
      <readonly>1</readonly>
      <max_execution_time>30</max_execution_time>
      <max_result_rows>1000000</max_result_rows>
      <max_memory_usage_for_user>{{.ReaderMemory}}</max_memory_usage_for_user>
      <max_concurrent_queries_for_user>32</max_concurrent_queries_for_user>
      <constraints>
        <max_execution_time><max>60</max><changeable_in_readonly/></max_execution_time>
        <max_result_rows><max>10000000</max><changeable_in_readonly/></max_result_rows>
      </constraints>
    </reader>
  </profiles>
  <quotas>
    <default/>
    <serve><interval><duration>1000000000</duration><queries>{{.ServeCount}}</queries></interval></serve>
    <reader><interval><duration>60</duration><queries>60000</queries><execution_time>1800</execution_time></interval></reader>
  </quotas>
  <users>
    <default>
      <no_password/>
      <networks><ip>{{.Host}}</ip></networks>
      <profile>default</profile>
      <quota>serve</quota>
      <grants>{{range .ServePrivileges}}<query>GRANT {{.}}</query>{{end}}</grants>
    </default>
    <{{.Admin}}>
      <password_sha256_hex>{{sha256 .Passwords.Admin}}</password_sha256_hex>
      <networks><ip>{{.Host}}</ip></networks>
      <profile>default</profile>
      <quota>default</quota>
      <access_management>1</access_management>
    </{{.Admin}}>
    <{{.Reader}}>
      <password_sha256_hex>{{sha256 .Passwords.Reader}}</password_sha256_hex>
      <networks><ip>{{.Host}}</ip></networks>
      <profile>reader</profile>
      <quota>reader</quota>
      <grants><query>GRANT SELECT ON {{xml .ReaderDatabase}}.*</query></grants>
    </{{.Reader}}>
  </users>
</clickhouse>
`

// layout is where things are below a ClickHouse directory.
type layout struct{ dir string }

func (l layout) credentials() string { return filepath.Join(l.dir, "credentials.json") }
func (l layout) config() string      { return filepath.Join(l.dir, "config.xml") }
func (l layout) users() string       { return filepath.Join(l.dir, "users.xml") }
func (l layout) data() string        { return filepath.Join(l.dir, "data") }
func (l layout) userFiles() string   { return filepath.Join(l.dir, "user_files") }
func (l layout) log() string         { return filepath.Join(l.dir, "clickhouse.log") }
func (l layout) errorLog() string    { return filepath.Join(l.dir, "clickhouse.err.log") }

// writeConfig writes both configuration files. They are written anew at every start, so a crash in
// between leaves nothing that is read.
func writeConfig(l layout, cfg ClickHouseConfig, passwords credentials) error {
	server := struct {
		Log, ErrorLog, Users, UserFiles string
		MaxMemory                       int64
	}{l.log(), l.errorLog(), l.users(), cfg.UserFiles, cfg.MaxMemory}
	users := struct {
		Host, Admin, Reader, ReaderDatabase string
		Passwords                           credentials
		ServePrivileges                     []string
		ServeCount                          int
		ReaderMemory                        int64
	}{loopback, adminUser, readerUser, cfg.ReaderDatabase, passwords, servePrivileges[:], serveCount, cfg.MaxMemory / 2}
	return errors.Join(
		writeTemplate(l.config(), serverTemplate, server),
		writeTemplate(l.users(), usersTemplate, users),
	)
}

func writeTemplate(path, text string, data any) error {
	t, err := template.New(filepath.Base(path)).Funcs(template.FuncMap{"xml": escapeXML, "sha256": hexSHA256}).Parse(text)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := t.Execute(&out, data); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return durable.WriteSecret(path, out.Bytes())
}

func escapeXML(s string) (string, error) {
	var b strings.Builder
	err := xml.EscapeText(&b, []byte(s))
	return b.String(), err
}

func hexSHA256(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}
