package pgfence

import (
	"crypto/sha256"
	_ "embed" // the SQL of the installation
	"encoding/binary"
	"encoding/hex"
	"regexp"
	"strings"

	"github.com/writ-io/writ/fence"
)

// steps are run once each, in this order; functionsSQL is run at every installation. A released step is never changed:
// an upgrade is another step.
var steps = []string{tablesSQL}

var (
	//go:embed sql/001_tables.sql
	tablesSQL string
	//go:embed sql/functions.sql
	functionsSQL string
)

// render puts the name of the schema into SQL. It has been checked, so that it is the same quoted and unquoted.
func render(sql, schema string) string {
	return strings.NewReplacer("{schema_name}", schema, "{schema}", `"`+schema+`"`).Replace(sql)
}

// sql is render for the short statements of this package.
func (c Config) sql(text string) string { return render(text, c.schema()) }

func names(schema, resource string) [sha256.Size]byte {
	return sha256.Sum256([]byte("writ\n" + schema + "\n" + resource))
}

// lockKey is what the SQL function lock_key answers.
func lockKey(schema, resource string) int64 {
	sum := names(schema, resource)
	return int64(binary.BigEndian.Uint64(sum[:8]))
}

// settingName is what the SQL function setting_name answers.
func settingName(schema, resource string) string {
	sum := names(schema, resource)
	return "writ.t" + hex.EncodeToString(sum[16:])
}

// presenting is SQL that presents a token for the rest of the transaction. It is made of a hash and a number, so there is
// nothing in it to inject.
func presenting(schema, resource string, token fence.Token) string {
	return "set local " + settingName(schema, resource) + " = '" + token.Decimal() + "'"
}

var functionText = regexp.MustCompile(`(?s)CREATE OR REPLACE FUNCTION \{schema\}\.(\w+)\(.*?AS \$writ\$(.*?)\$writ\$`)

// bodies are the functions as they should stand in the database, by name.
func bodies(schema string) map[string]string {
	found := make(map[string]string)
	for _, match := range functionText.FindAllStringSubmatch(functionsSQL, -1) {
		found[match[1]] = render(match[2], schema)
	}
	return found
}
