-- For pandoc. A man page has no room for columns, so a table becomes a list of definitions: the first cell is the term,
-- the others, except empty ones, are its meaning. A link to another part of the manual becomes its text.

-- Columns of the tables of keys, which follow the meaning, with their names.
local labelled = { default = "Default: ", range = "Range: ", reload = "Reload: " }

local function append(list, inlines, label)
  if #list > 0 then table.insert(list, pandoc.Str(". ")) end
  if label then table.insert(list, pandoc.Str(label)) end
  for _, inline in ipairs(inlines) do table.insert(list, inline) end
end

-- Columns without a label of their own have their heading in front where there is more than one of them.
local function meaning_of(row, headers)
  local meaning, facts = {}, {}
  local plain = 0
  for i = 2, #row do if not labelled[headers[i]] then plain = plain + 1 end end
  for i = 2, #row do
    local cell = pandoc.utils.blocks_to_inlines(row[i])
    if #cell > 0 and labelled[headers[i]] then
      append(facts, cell, labelled[headers[i]])
    elseif #cell > 0 then
      append(meaning, cell, plain > 1 and headers[i] .. ": " or nil)
    end
  end
  if #facts > 0 then append(meaning, facts) end
  return meaning
end

function Table(tbl)
  local simple = pandoc.utils.to_simple_table(tbl)
  local headers, items = {}, {}
  for i, cell in ipairs(simple.headers) do headers[i] = pandoc.utils.stringify(cell) end
  for _, row in ipairs(simple.rows) do
    local term = pandoc.utils.blocks_to_inlines(row[1])
    table.insert(items, { term, { { pandoc.Para(meaning_of(row, headers)) } } })
  end
  return pandoc.DefinitionList(items)
end

function Link(link)
  if not link.target:match("^%a+:") then return link.content end
end
