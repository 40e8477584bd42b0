//! The pickle machine, reduced to what describes data. Opcodes: Python's `pickletools`, protocols 0 to 5.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use lattice_kernels::StoredDType;

use super::tensor::{Storage, TensorView};
use crate::cursor::Cursor;
use crate::error::Cause;

/// Objects a pickle may build; each opcode adds at most one, so this only bounds memory beside the file's size.
const OBJECT_LIMIT: usize = 20_000_000;
/// Items of lists that calls may copy: a list that is memorised once can be the argument of any number of them.
const COPY_LIMIT: usize = 20_000_000;
/// Most axes a tensor can have in PyTorch.
const AXES_LIMIT: usize = 64;

/// A value; containers are numbers into the machine's list, so shared and cyclic structures cost nothing.
#[derive(Clone, Debug)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// Shared: the memo gives it out any number of times.
    Text(Arc<str>),
    Object(usize),
    Global(Global),
    Mark,
}

impl Value {
    pub(super) fn text(&self) -> Option<Arc<str>> {
        match self {
            Self::Text(text) => Some(text.clone()),
            _ => None,
        }
    }

    /// A number or text as text.
    pub(super) fn scalar(&self) -> Option<Arc<str>> {
        match self {
            Self::Bool(v) => Some(v.to_string().into()),
            Self::Int(v) => Some(v.to_string().into()),
            Self::Float(v) => Some(v.to_string().into()),
            Self::Text(v) => Some(v.clone()),
            _ => None,
        }
    }

    fn int(&self) -> Option<i64> {
        match self {
            Self::Int(v) => Some(*v),
            _ => None,
        }
    }
}

/// What a name of a Python object stands for here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    /// `collections.OrderedDict` and the like: an empty dictionary when called.
    Dict,
    /// Classes of storages.
    Storage(StoredDType),
    /// `torch._utils._rebuild_tensor_v2`: a view from storage, offset, shape and strides.
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`: its first argument.
    RebuildParameter,
    /// `torch.Size`: its first argument.
    Identity,
    /// Element types and other objects that carry nothing needed here. Calling one gives nothing.
    Inert,
}

impl Global {
    /// The allow list.
    fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict" | "defaultdict" | "Counter") | ("builtins" | "__builtin__", "dict") => {
                Self::Dict
            }
            ("torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Self::RebuildParameter,
            ("torch", "Size") => Self::Identity,
            ("torch" | "torch.cuda" | "torch.storage", storage) if storage.ends_with("Storage") => {
                Self::Storage(storage_dtype(storage)?)
            }
            (
                "torch",
                "float32" | "float64" | "float16" | "bfloat16" | "float8_e4m3fn" | "float8_e5m2" | "int64" | "int32"
                | "int16" | "int8" | "uint8" | "bool" | "device",
            )
            // Left in the checkpoints of the original training code, beside the weights.
            | ("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint")
            | ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar")
            | ("numpy", "dtype")
            | ("_codecs", "encode")
            | ("builtins" | "__builtin__", "set" | "frozenset" | "list" | "tuple" | "int" | "float" | "bytearray") => {
                Self::Inert
            }
            _ => return None,
        })
    }
}

fn storage_dtype(class: &str) -> Option<StoredDType> {
    Some(match class {
        "DoubleStorage" => StoredDType::F64,
        "FloatStorage" => StoredDType::F32,
        "HalfStorage" => StoredDType::F16,
        "BFloat16Storage" => StoredDType::BF16,
        "Float8_e4m3fnStorage" => StoredDType::F8E4M3,
        "Float8_e5m2Storage" => StoredDType::F8E5M2,
        "LongStorage" => StoredDType::I64,
        "IntStorage" => StoredDType::I32,
        "ShortStorage" => StoredDType::I16,
        "CharStorage" => StoredDType::I8,
        "ByteStorage" | "UntypedStorage" => StoredDType::U8,
        "BoolStorage" => StoredDType::Bool,
        _ => return None,
    })
}

#[derive(Clone, Debug)]
enum Object {
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    Storage(Storage),
    Tensor(TensorView),
}

/// Stack machine with its objects.
#[derive(Default)]
pub(super) struct Machine {
    stack: Vec<Value>,
    memo: HashMap<u64, Value>,
    objects: Vec<Object>,
    storages: HashMap<Arc<str>, StoredDType>,
    /// Items that calls have copied.
    copied: usize,
}

fn bad(detail: impl std::fmt::Display) -> Cause {
    Cause::malformed("pickle", detail)
}

impl Machine {
    /// Pairs of a dictionary; none of anything else.
    pub(super) fn pairs(&self, value: &Value) -> &[(Value, Value)] {
        match self.object(value) {
            Some(Object::Dict(pairs)) => pairs,
            _ => &[],
        }
    }

    /// Items of a list or tuple; none of anything else.
    pub(super) fn items(&self, value: &Value) -> &[Value] {
        match self.object(value) {
            Some(Object::List(items)) => items,
            _ => &[],
        }
    }

    pub(super) fn tensor(&self, value: &Value) -> Option<&TensorView> {
        match self.object(value) {
            Some(Object::Tensor(view)) => Some(view),
            _ => None,
        }
    }

    /// Element type of a storage that the pickle named.
    pub(super) fn storage_dtype(&self, key: &str) -> Option<StoredDType> {
        self.storages.get(key).copied()
    }

    fn object(&self, value: &Value) -> Option<&Object> {
        match value {
            Value::Object(index) => self.objects.get(*index),
            _ => None,
        }
    }

    fn add(&mut self, object: Object) -> Result<Value, Cause> {
        if self.objects.len() >= OBJECT_LIMIT {
            return Err(bad("too many objects"));
        }
        self.objects.push(object);
        Ok(Value::Object(self.objects.len() - 1))
    }

    fn pop(&mut self) -> Result<Value, Cause> {
        self.stack.pop().ok_or_else(|| bad("the stack is empty"))
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value>, Cause> {
        let mark = self.stack.iter().rposition(|v| matches!(v, Value::Mark)).ok_or_else(|| bad("no mark"))?;
        let out = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(out)
    }

    fn push_list(&mut self, items: Vec<Value>) -> Result<(), Cause> {
        let value = self.add(Object::List(items))?;
        self.stack.push(value);
        Ok(())
    }

    fn push_dict(&mut self, items: Vec<Value>) -> Result<(), Cause> {
        let value = self.add(Object::Dict(pairs_of(items)?))?;
        self.stack.push(value);
        Ok(())
    }

    fn append(&mut self, items: Vec<Value>) {
        if let Some(Value::Object(index)) = self.stack.last()
            && let Some(Object::List(list)) = self.objects.get_mut(*index)
        {
            list.extend(items);
        }
        // Items of a set, or of an object that carries nothing here, are dropped.
    }

    fn set_items(&mut self, items: Vec<Value>) -> Result<(), Cause> {
        let pairs = pairs_of(items)?;
        if let Some(Value::Object(index)) = self.stack.last()
            && let Some(Object::Dict(dict)) = self.objects.get_mut(*index)
        {
            dict.extend(pairs);
        }
        Ok(())
    }

    /// Runs one pickle from a position; its value and where it ended.
    pub(super) fn run(&mut self, bytes: &Bytes, position: usize) -> Result<(Value, usize), Cause> {
        let mut cursor = Cursor::new(bytes, position);
        loop {
            let [op] = cursor.array("the pickle")?;
            if op == b'.' {
                return Ok((self.pop()?, cursor.position()));
            }
            self.step(op, &mut cursor)?;
        }
    }

    fn step(&mut self, op: u8, cursor: &mut Cursor<'_>) -> Result<(), Cause> {
        let what = "the pickle";
        match op {
            0x80 => drop(cursor.array::<1>(what)?),
            0x95 => drop(cursor.u64(what)?),
            b'(' => self.stack.push(Value::Mark),
            // An object's attributes (BUILD) are dropped like any other top of the stack.
            b'0' | b'b' => drop(self.pop()?),
            b'1' => drop(self.pop_to_mark()?),
            b'2' => {
                let top = self.stack.last().cloned().ok_or_else(|| bad("the stack is empty"))?;
                self.stack.push(top);
            }
            b'N' => self.stack.push(Value::None),
            0x88 => self.stack.push(Value::Bool(true)),
            0x89 => self.stack.push(Value::Bool(false)),
            b'J' => self.stack.push(Value::Int(i64::from(i32::from_le_bytes(cursor.array(what)?)))),
            b'K' => self.stack.push(Value::Int(i64::from(u8::from_le_bytes(cursor.array(what)?)))),
            b'M' => self.stack.push(Value::Int(i64::from(u16::from_le_bytes(cursor.array(what)?)))),
            0x8a => {
                let [length] = cursor.array(what)?;
                self.stack.push(long(cursor.take(u64::from(length), what)?));
            }
            0x8b => {
                let length = u64::from(cursor.u32(what)?);
                self.stack.push(long(cursor.take(length, what)?));
            }
            b'G' => self.stack.push(Value::Float(f64::from_be_bytes(cursor.array(what)?))),
            b'I' | b'L' => {
                let text = line(cursor)?;
                let value = match text.trim_end_matches('L') {
                    "00" => Value::Bool(false),
                    "01" => Value::Bool(true),
                    number => Value::Int(number.parse().map_err(|_| bad(format!("`{text}` is no integer")))?),
                };
                self.stack.push(value);
            }
            b'F' => {
                let text = line(cursor)?;
                self.stack
                    .push(Value::Float(text.parse().map_err(|_| bad(format!("`{text}` is no number")))?));
            }
            b'S' | b'V' => {
                let text = line(cursor)?;
                self.stack.push(Value::Text(text.trim_matches(['\'', '"']).into()));
            }
            b'U' | 0x8c | b'C' => {
                let [length] = cursor.array(what)?;
                self.string(op == b'C', cursor.take(u64::from(length), what)?)?;
            }
            b'T' | b'X' | b'B' => {
                let length = u64::from(cursor.u32(what)?);
                self.string(op == b'B', cursor.take(length, what)?)?;
            }
            0x8d | 0x8e | 0x96 => {
                let length = cursor.u64(what)?;
                self.string(op != 0x8d, cursor.take(length, what)?)?;
            }
            b']' | b')' | 0x8f => self.push_list(Vec::new())?,
            b'}' => self.push_dict(Vec::new())?,
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item]);
            }
            b'e' | 0x90 => {
                let items = self.pop_to_mark()?;
                self.append(items);
            }
            b'l' | b't' | 0x91 => {
                let items = self.pop_to_mark()?;
                self.push_list(items)?;
            }
            0x85..=0x87 => {
                let at = self
                    .stack
                    .len()
                    .checked_sub(usize::from(op - 0x84))
                    .ok_or_else(|| bad("the stack is empty"))?;
                let items = self.stack.split_off(at);
                self.push_list(items)?;
            }
            b'd' => {
                let items = self.pop_to_mark()?;
                self.push_dict(items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(vec![key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set_items(items)?;
            }
            b'g' => {
                let text = line(cursor)?;
                self.recall(text.parse().map_err(|_| bad("a memo number is none"))?)?;
            }
            b'h' => {
                let [index] = cursor.array(what)?;
                self.recall(u64::from(index))?;
            }
            b'j' => {
                let index = cursor.u32(what)?;
                self.recall(u64::from(index))?;
            }
            b'p' => {
                let text = line(cursor)?;
                self.memorise(text.parse().map_err(|_| bad("a memo number is none"))?)?;
            }
            b'q' => {
                let [index] = cursor.array(what)?;
                self.memorise(u64::from(index))?;
            }
            b'r' => {
                let index = cursor.u32(what)?;
                self.memorise(u64::from(index))?;
            }
            0x94 => self.memorise(self.memo.len() as u64)?,
            b'c' => {
                let (module, name) = (line(cursor)?, line(cursor)?);
                self.global(&module, &name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (module.text(), name.text()) {
                    (Some(module), Some(name)) => self.global(&module, &name)?,
                    _ => return Err(bad("a global without a name")),
                }
            }
            b'R' | 0x81 => {
                let (arguments, callee) = (self.pop()?, self.pop()?);
                let value = self.call(&callee, &arguments)?;
                self.stack.push(value);
            }
            0x92 => {
                drop(self.pop()?);
                let (arguments, callee) = (self.pop()?, self.pop()?);
                let value = self.call(&callee, &arguments)?;
                self.stack.push(value);
            }
            b'Q' => {
                let id = self.pop()?;
                let value = self.persistent(&id)?;
                self.stack.push(value);
            }
            other => return Err(bad(format!("opcode {other:#04x} is not allowed"))),
        }
        Ok(())
    }

    fn string(&mut self, bytes: bool, data: &[u8]) -> Result<(), Cause> {
        // Raw bytes carry nothing needed here.
        self.stack.push(if bytes {
            Value::None
        } else {
            Value::Text(std::str::from_utf8(data).map_err(bad)?.into())
        });
        Ok(())
    }

    fn recall(&mut self, index: u64) -> Result<(), Cause> {
        let value =
            self.memo.get(&index).cloned().ok_or_else(|| bad(format!("nothing is memorised as {index}")))?;
        self.stack.push(value);
        Ok(())
    }

    fn memorise(&mut self, index: u64) -> Result<(), Cause> {
        let value = self.stack.last().cloned().ok_or_else(|| bad("the stack is empty"))?;
        self.memo.insert(index, value);
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), Cause> {
        let found = Global::find(module, name)
            .ok_or_else(|| Cause::ForbiddenGlobal { global: format!("{module}.{name}") })?;
        self.stack.push(Value::Global(found));
        Ok(())
    }

    /// What calling one of the known objects builds. Nothing is ever run.
    fn call(&mut self, callee: &Value, arguments: &Value) -> Result<Value, Cause> {
        let Value::Global(global) = callee else { return Ok(Value::None) };
        let items = self.items(arguments);
        match global {
            Global::Dict => {
                // A list of pairs may come along.
                let list = items.first().map(|list| self.items(list)).unwrap_or_default();
                let copied = self.copied + list.len();
                if copied > COPY_LIMIT {
                    return Err(bad("it copies its lists too often"));
                }
                let pairs = list.iter().filter_map(|p| match self.items(p) {
                    [key, value] => Some((key.clone(), value.clone())),
                    _ => None,
                });
                let pairs = pairs.collect();
                self.copied = copied;
                self.add(Object::Dict(pairs))
            }
            Global::RebuildTensor => {
                let view = self.view(items).ok_or_else(|| bad("a tensor's description is incomplete"))?;
                self.add(Object::Tensor(view))
            }
            Global::RebuildParameter | Global::Identity => Ok(items.first().cloned().unwrap_or(Value::None)),
            Global::Storage(_) | Global::Inert => Ok(Value::None),
        }
    }

    fn view(&self, items: &[Value]) -> Option<TensorView> {
        let [storage, offset, shape, strides, ..] = items else { return None };
        let Some(Object::Storage(storage)) = self.object(storage) else { return None };
        let numbers = |v: &Value| {
            let items = Some(self.items(v)).filter(|items| items.len() <= AXES_LIMIT)?;
            items.iter().map(Value::int).collect::<Option<Vec<_>>>()
        };
        Some(TensorView {
            storage: storage.clone(),
            offset: offset.int()?,
            shape: numbers(shape)?,
            strides: numbers(strides)?,
        })
    }

    /// `("storage", class, key, device, length, ...)`.
    fn persistent(&mut self, id: &Value) -> Result<Value, Cause> {
        let storage = match self.items(id) {
            [Value::Text(kind), Value::Global(Global::Storage(dtype)), Value::Text(key), ..]
                if **kind == *"storage" =>
            {
                Storage { key: key.clone(), dtype: *dtype }
            }
            _ => return Err(bad("a persistent id that is no storage")),
        };
        self.storages.insert(storage.key.clone(), storage.dtype);
        self.add(Object::Storage(storage))
    }
}

fn pairs_of(items: Vec<Value>) -> Result<Vec<(Value, Value)>, Cause> {
    if !items.len().is_multiple_of(2) {
        return Err(bad("a key without a value"));
    }
    let mut out = Vec::with_capacity(items.len() / 2);
    let mut items = items.into_iter();
    while let Some((key, value)) = items.next().zip(items.next()) {
        out.push((key, value));
    }
    Ok(out)
}

/// A little-endian two's complement integer; those beyond 64 bits carry nothing needed here.
fn long(bytes: &[u8]) -> Value {
    if bytes.len() > 8 {
        return Value::None;
    }
    let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
    let mut all = [if negative { 0xff } else { 0 }; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(all))
}

/// Text up to the end of the line.
fn line(cursor: &mut Cursor<'_>) -> Result<String, Cause> {
    let mut out = Vec::new();
    loop {
        match cursor.array("the pickle")? {
            [b'\n'] => return String::from_utf8(out).map_err(bad),
            [byte] => out.push(byte),
        }
    }
}
