// Package soak holds one test: many clients at once, some of whom leave or send nonsense, for as long as AUTODEV_SOAK says (ten seconds). What it
// looks for is what only shows under load: wrong answers, leaks, requests lost when the server stops.
package soak
