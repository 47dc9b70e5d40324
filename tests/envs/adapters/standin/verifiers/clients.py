"""What talks to a model."""

from abc import ABC, abstractmethod

from verifiers.errors import Error, ModelError


class Client(ABC):
    def __init__(self, client):
        self._client = client

    @abstractmethod
    def setup_client(self, config): ...

    @abstractmethod
    async def to_native_tool(self, tool): ...

    @abstractmethod
    async def to_native_prompt(self, messages): ...

    @abstractmethod
    async def get_native_response(self, prompt, model, sampling_args, tools=None, **kwargs): ...

    @abstractmethod
    async def raise_from_native_response(self, response): ...

    @abstractmethod
    async def from_native_response(self, response): ...

    @abstractmethod
    async def close(self): ...

    async def get_response(self, prompt, model, sampling_args, tools=None, **kwargs):
        try:
            native, more = await self.to_native_prompt(prompt)
            known = [await self.to_native_tool(tool) for tool in tools or ()]
            response = await self.get_native_response(
                native, model, sampling_args, known, **more, **kwargs
            )
            await self.raise_from_native_response(response)
            return await self.from_native_response(response)
        except Error:
            raise
        except Exception as error:
            raise ModelError from error
