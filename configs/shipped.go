package configs

import (
	"embed"
	"fmt"
)

//go:embed *.yaml
var shipped embed.FS

// Shipped returns the recipe of this folder with the given file name.
func Shipped(name string, sets ...string) (Recipe, error) {
	b, err := shipped.ReadFile(name)
	if err != nil {
		return Recipe{}, fmt.Errorf("shipped recipe: %w", err)
	}
	return Parse("configs/"+name, b, sets)
}
