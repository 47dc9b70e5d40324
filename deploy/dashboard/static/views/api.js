// @ts-check
// The server's own description of its API as a page.

import { get } from "../lib/api.js";
import { fill, h } from "../lib/dom.js";

/** @param {HTMLElement} place @param {import("../main.js").Context} context */
export async function show(place, context) {
  const api = await get("/openapi.json", {}, context.signal);
  context.title("API");
  const operations = Object.entries(api.paths).flatMap(([path, own]) => Object.entries(own).map(([method, operation]) => ({ path, method, operation })));
  fill(place, h("div", { class: "head" }, h("nav", { class: "crumbs" }, h("h1", null, "API"), h("span", { class: "quiet" }, `version ${api.info.version}`))),
    h("p", null, api.info.description, " The description for tools is at ", h("a", { href: "/api/openapi.json" }, "/api/openapi.json"), "."),
    operations.map(({ path, method, operation }) => describe(path, method, operation, api.components.schemas)));
}

/** @param {string} path @param {string} method @param {any} operation @param {any} schemas */
function describe(path, method, operation, schemas) {
  const parameters = operation.parameters ?? [];
  const ok = operation.responses["200"]?.content?.["application/json"]?.schema;
  return h("details", { class: "operation" },
    h("summary", null, h("b", { class: "mono" }, method.toUpperCase()), h("span", { class: "mono" }, path), h("span", { class: "quiet" }, operation.description ?? operation.summary)),
    parameters.length ? h("table", { class: "list" },
      h("thead", null, h("tr", null, ["parameter", "in", "type", "what"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", null, parameters.map((/** @type {any} */ own) => h("tr", null, h("th", { scope: "row", class: "mono" }, own.name, own.required ? " *" : ""), h("td", null, own.in), h("td", { class: "mono" }, type(own.schema)), h("td", null, own.description ?? ""))))) : null,
    ok ? h("div", null, h("p", { class: "quiet" }, "Answer"), fields(ok, schemas)) : null,
    h("p", { class: "quiet" }, Object.entries(operation.responses).map(([code, own]) => `${code}: ${/** @type {any} */ (own).description}`).join(" · ")));
}

/** @param {any} schema @param {any} schemas */
function fields(schema, schemas) {
  const name = (schema.$ref ?? "").split("/").pop();
  const own = schemas[name];
  if (!own?.properties) return h("p", { class: "mono" }, type(schema));
  return h("table", { class: "list" }, h("tbody", null, Object.entries(own.properties).map(([field, value]) =>
    h("tr", null, h("th", { scope: "row", class: "mono" }, field), h("td", { class: "mono" }, type(value)), h("td", null, /** @type {any} */ (value).description ?? "")))));
}

/** @param {any} schema @returns {string} */
function type(schema) {
  if (!schema) return "any";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(type).join(" | ");
  if (schema.enum) return schema.enum.join(" | ");
  if (schema.type === "array") return `list of ${type(schema.items)}`;
  return schema.type ?? "any";
}
