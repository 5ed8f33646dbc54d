// Package chat turns conversations into the token ids that an instruction-tuned model expects, by the template that the model carries.
//
//	template.go  a template and what it makes of messages
//	load.go      templates from model folders: chat_template.jinja, tokenizer_config.json
//	fallback.go  what models without a template get
//	prompter.go  a template with its model's tokenizer: prompts for package infer, stop texts
//	clock.go     strftime
//	jinja/       the language of templates
//
// Text of a message is never taken for a control token, wherever a template puts it and whatever it cuts off it: the renderer keeps track of every
// byte (package jinja), and control tokens are recognised only in bytes of the template. Messages without spelled-out control tokens get exactly the
// ids that transformers' apply_chat_template gives them.
//
// What must not live here: protocols, or instructions for tasks (package serve/assist).
package chat
