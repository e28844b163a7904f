-- For pandoc: a table becomes a list of definitions, its first cell the term, the others, but empty ones, what it means.
-- A man page has no room for columns.
function Table(tbl)
  local simple = pandoc.utils.to_simple_table(tbl)
  local headers = {}
  for i, cell in ipairs(simple.headers) do headers[i] = pandoc.utils.stringify(cell) end
  local items = {}
  for _, row in ipairs(simple.rows) do
    local term = pandoc.utils.blocks_to_inlines(row[1])
    local rest = {}
    for i = 2, #row do
      local text = pandoc.utils.blocks_to_inlines(row[i])
      if #text > 0 then
        if #rest > 0 then table.insert(rest, pandoc.Str(". ")) end
        if headers[i] == "default" then
          table.insert(rest, pandoc.Str("Default "))
        end
        for _, inline in ipairs(text) do table.insert(rest, inline) end
      end
    end
    table.insert(items, { term, { { pandoc.Para(rest) } } })
  end
  return pandoc.DefinitionList(items)
end
