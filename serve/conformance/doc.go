// Package conformance drives the server, all protocols on one port, with the clients that people use. There is nothing in it but tests.
//
//	suite_test.go    the server, its models, and what they have to answer
//	node_test.go     clients from npm: openai, ollama, @mistralai/mistralai, @continuedev/openai-adapters, tabby-agent
//	openaigo_test.go OpenAI's Go client
//	requests_test.go what llama.vim and llama.vscode send, as files
//	same_test.go     one request through every protocol
//
// The npm clients are those of testdata/clients/package-lock.json. AUTODEV_NODE_CLIENTS names a folder in which `npm ci` has installed them; without
// it their tests are skipped.
package conformance
